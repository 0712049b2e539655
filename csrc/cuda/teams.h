// Teams of blocks that share one W_hh: how h goes round among them. An image is h of the team's rows, as the products
// read it; what is published in step s is in every block's image of step s + 1.
#pragma once

#include "device.h"
#include "lstm_tiles.h"

namespace textclf_fast::cuda {

// What a team needs beyond its blocks' shared memory, in global memory, zero before the launch.
struct GridWorkspace {
  uint32_t* counters;     // one a team
  unsigned char* memory;  // two images a team; in the backward two buffers of sums a block, which need not be zero
};

// One barrier of a team of that many blocks, the count-th, by a counter that only grows.
__device__ inline void sync_team(uint32_t* counter, int count, int blocks) {
  sync_block();
  if (threadIdx.x == 0) {
    add_release(counter, 1);
    wait_acquire(counter, uint32_t(count) * uint32_t(blocks));
  }
  sync_block();
}

// One block: two images in shared memory, one barrier a step.
class BlockTeam {
 public:
  static constexpr int kImages = 2;

  __device__ BlockTeam(const Tiles& tiles, unsigned char* images, const GridWorkspace&, int)
      : tiles_(tiles), images_(images) {}

  // After every block has put h0 into its first image, and zeros elsewhere.
  __device__ void begin() const { sync_block(); }
  __device__ const unsigned char* image(int step) const { return images_ + (step & 1) * tiles_.image_bytes(); }
  __device__ void publish(int step, int offset, uint32_t word) const {
    *reinterpret_cast<uint32_t*>(images_ + (~step & 1) * tiles_.image_bytes() + offset) = word;
  }
  __device__ void end_step(int) const { sync_block(); }

 private:
  const Tiles& tiles_;
  unsigned char* images_;
};

// Blocks of a cluster: every word is written to each block's shared memory; one cluster barrier a step.
class ClusterTeam {
 public:
  static constexpr int kImages = 2;

  __device__ ClusterTeam(const Tiles& tiles, unsigned char* images, const GridWorkspace&, int)
      : tiles_(tiles), images_(images) {}

  __device__ void begin() const { sync_cluster(); }
  __device__ const unsigned char* image(int step) const { return images_ + (step & 1) * tiles_.image_bytes(); }
  __device__ void publish(int step, int offset, uint32_t word) const {
    auto* at = reinterpret_cast<uint32_t*>(images_ + (~step & 1) * tiles_.image_bytes() + offset);
    for (int block = 0; block < tiles_.team; ++block) store_cluster(at, unsigned(block), word);
  }
  __device__ void end_step(int) const { sync_cluster(); }

 private:
  const Tiles& tiles_;
  unsigned char* images_;
};

// Blocks of a grid that are on the GPU together: images go through global memory, which for so little is the
// second-level cache. One barrier of the team a step.
class GridTeam {
 public:
  static constexpr int kImages = 1;

  __device__ GridTeam(const Tiles& tiles, unsigned char* image, const GridWorkspace& workspace, int team)
      : tiles_(tiles), workspace_(workspace), image_(image), team_(team) {}

  __device__ void begin() const { sync_block(); }
  __device__ const unsigned char* image(int step) const {
    if (step == 0) return image_;
    const unsigned char* from = global_image(step & 1);
#pragma unroll 1
    for (int at = int(threadIdx.x) * 16; at < tiles_.image_bytes(); at += int(blockDim.x) * 16)
      copy_async_16(image_ + at, from + at);
    copy_async_commit();
    copy_async_wait<0>();
    sync_block();
    return image_;
  }
  __device__ void publish(int step, int offset, uint32_t word) const {
    *reinterpret_cast<uint32_t*>(global_image(~step & 1) + offset) = word;
  }
  __device__ void end_step(int step) const { sync_team(workspace_.counters + team_, step + 1, tiles_.team); }

 private:
  // All images together are below 4 GB: no more teams than multiprocessors, 1 MB at most each.
  __device__ unsigned char* global_image(int which) const {
    return workspace_.memory + unsigned(team_ * 2 + which) * unsigned(tiles_.image_bytes());
  }

  const Tiles& tiles_;
  const GridWorkspace& workspace_;
  unsigned char* image_;
  int team_;
};

}  // namespace textclf_fast::cuda

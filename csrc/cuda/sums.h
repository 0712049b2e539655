// How the blocks of a team send each other sums in the backward. Each block has a buffer of a row for every sender and
// row of the batch (BackwardTiles); what is sent in step s is received in step s + 1, by all threads of a block.
#pragma once

#include "teams.h"

namespace textclf_fast::cuda {

// One block: sums stay in its shared memory. Between reading them and writing the next lies the barrier before the
// product.
class BlockSums {
 public:
  static constexpr Family kFamily = Family::kBlock;

  __device__ BlockSums(const BackwardTiles&, unsigned char* shared, const GridWorkspace&, int) : shared_(shared) {}

  __device__ void begin() const { sync_block(); }
  __device__ void send(int, int, int offset, const uint4& sums) const {
    *reinterpret_cast<uint4*>(shared_ + offset) = sums;
  }
  __device__ void end_step(int) const { sync_block(); }
  __device__ const float* received(int) const { return reinterpret_cast<const float*>(shared_); }

 private:
  unsigned char* shared_;
};

// Blocks of a cluster write to each other's shared memory: two buffers, since one may still be read.
class ClusterSums {
 public:
  static constexpr Family kFamily = Family::kCluster;

  __device__ ClusterSums(const BackwardTiles& tiles, unsigned char* shared, const GridWorkspace&, int)
      : tiles_(tiles), shared_(shared) {}

  __device__ void begin() const { sync_cluster(); }
  __device__ void send(int step, int block, int offset, const uint4& sums) const {
    store_cluster(reinterpret_cast<uint4*>(buffer(step) + offset), unsigned(block), sums);
  }
  __device__ void end_step(int) const { sync_cluster(); }
  __device__ const float* received(int step) const { return reinterpret_cast<const float*>(buffer(step)); }

 private:
  __device__ unsigned char* buffer(int step) const { return shared_ + (step & 1) * int(tiles_.sums_bytes()); }

  const BackwardTiles& tiles_;
  unsigned char* shared_;
};

// Blocks of a grid: two buffers a block in global memory, read by one copy to shared memory, which waits for memory
// once.
class GridSums {
 public:
  static constexpr Family kFamily = Family::kGrid;

  __device__ GridSums(const BackwardTiles& tiles, unsigned char* shared, const GridWorkspace& workspace, int team)
      : tiles_(tiles), workspace_(workspace), shared_(shared), team_(team) {}

  __device__ void begin() const { sync_block(); }
  __device__ void send(int step, int block, int offset, const uint4& sums) const {
    *reinterpret_cast<uint4*>(buffer(step, block) + offset) = sums;
  }
  __device__ void end_step(int step) const { sync_team(workspace_.counters + team_, step + 1, tiles_.team); }
  __device__ const float* received(int step) const {
    const unsigned char* from = buffer(step, int(blockIdx.x) % tiles_.team);
    const int bytes = int(tiles_.sums_bytes());
#pragma unroll 1
    for (int at = int(threadIdx.x) * 16; at < bytes; at += int(blockDim.x) * 16) copy_async_16(shared_ + at, from + at);
    copy_async_commit();
    copy_async_wait<0>();
    sync_block();
    return reinterpret_cast<const float*>(shared_);
  }

 private:
  __device__ unsigned char* buffer(int step, int block) const {
    return workspace_.memory + ((int64_t(team_) * 2 + (step & 1)) * tiles_.team + block) * tiles_.sums_bytes();
  }

  const BackwardTiles& tiles_;
  const GridWorkspace& workspace_;
  unsigned char* shared_;
  int team_;
};

}  // namespace textclf_fast::cuda

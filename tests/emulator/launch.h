// Launches: the limits of a GPU, the blocks' shared memory, and which blocks are on the GPU together.
#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>

#include "scheduler.h"

namespace emulator {

// The GPU that launches are checked against; an H100 unless a test says otherwise.
struct Device {
  int major = 9, minor = 0;
  int multiprocessors = 132;
  int64_t shared_bytes = 227 << 10;  // that a block may ask for
  unsigned cluster = 8;              // blocks of the largest cluster; 1: none
};
inline Device device;

struct Shape {
  Index3 grid;
  unsigned threads;  // of a block
  size_t shared_bytes = 0;
  unsigned cluster = 1;
  bool cooperative = false;
};

inline void check_limits(const Shape& shape) {
  const auto demand = [](bool good, const std::string& what) {
    if (!good) throw Failure("launch: " + what);
  };
  const uint64_t blocks = uint64_t(shape.grid.x) * shape.grid.y * shape.grid.z;
  demand(blocks > 0, "the grid is empty");
  demand(shape.grid.y <= 65535 && shape.grid.z <= 65535, "the grid has more than 65535 blocks in y or z");
  demand(shape.threads % 32 == 0 && shape.threads > 0, std::to_string(shape.threads) + " threads are no whole warps");
  demand(shape.threads <= 1024, std::to_string(shape.threads) + " threads, and a block has at most 1024");
  demand(int64_t(shape.shared_bytes) <= device.shared_bytes, std::to_string(shape.shared_bytes) +
                                                                 " bytes of shared memory, and a block has " +
                                                                 std::to_string(device.shared_bytes));
  demand(shape.cluster == 1 || device.major >= 9, "clusters need compute capability 9.0");
  demand(shape.cluster <= device.cluster, "a cluster of " + std::to_string(shape.cluster) + " blocks");
  demand(shape.grid.x % shape.cluster == 0, "the grid is no multiple of the cluster");
  // One block a multiprocessor is what our persistent kernels take; more would need the count of registers.
  demand(!shape.cooperative || blocks <= uint64_t(device.multiprocessors),
         std::to_string(blocks) + " blocks cannot be on " + std::to_string(device.multiprocessors) +
             " multiprocessors together");
}

inline std::unique_ptr<Group> make_group(const Shape& shape, const std::vector<size_t>& blocks) {
  auto g = std::make_unique<Group>();
  g->grid = shape.grid;
  g->threads = shape.threads;
  g->cluster = shape.cluster;
  for (const size_t number : blocks) {
    const unsigned x = shape.grid.x, y = shape.grid.y;
    auto block =
        std::unique_ptr<Block>(new Block{g.get(),
                                         {unsigned(number % x), unsigned(number / x % y), unsigned(number / x / y)},
                                         unsigned(g->blocks.size()),
                                         Barrier(shape.threads),
                                         nullptr,
                                         shape.shared_bytes,
                                         {},
                                         0,
                                         0});
    block->shared.reset(new unsigned char[shape.shared_bytes]);
    std::memset(block->shared.get(), 0xff, shape.shared_bytes);  // NaN, and an index that is nowhere
    for (unsigned w = 0; w < shape.threads / 32; ++w) block->warps.push_back(std::make_unique<Warp>());
    for (unsigned t = 0; t < shape.threads; ++t) {
      g->all.push_back(std::make_unique<Thread>());
      g->all.back()->block = block.get();
      g->all.back()->index = t;
      g->all.back()->rank = g->all.size() - 1;
    }
    if (g->blocks.size() % shape.cluster == 0)
      g->cluster_barriers.push_back(std::make_unique<Barrier>(shape.threads * shape.cluster));
    g->blocks.push_back(std::move(block));
  }
  return g;
}

// Runs `body` in every thread of the grid. Raises Failure.
inline void run(const Shape& shape, void (*body)(const void*), const void* arguments) {
  const Unwatched _;
  check_limits(shape);
  const size_t blocks = size_t(shape.grid.x) * shape.grid.y * shape.grid.z;
  const size_t together = shape.cooperative ? blocks : shape.cluster;
  std::vector<size_t> order(blocks / together);
  std::iota(order.begin(), order.end(), size_t(0));
  std::mt19937 chance(schedule);
  if (schedule == kReversed) std::reverse(order.begin(), order.end());
  if (schedule > kReversed) std::shuffle(order.begin(), order.end(), chance);
  release(&launch_edge);
  for (const size_t first : order) {
    std::vector<size_t> members(together);
    std::iota(members.begin(), members.end(), first * together);
    const auto g = make_group(shape, members);
    g->body = body;
    g->arguments = arguments;
    run_group(*g);
  }
  acquire(&end_edge);
}

}  // namespace emulator

// No thread needs what another has found, but for one launch between: a row's rank is how many rows come before it, a
// step begins at the sum of what is left of the lengths when they are cut at it. So a warp counts for each row and
// step, over all lengths, which are in the nearest cache; then each position is a thread's.
#include "layout_in_place.h"

namespace textclf_fast::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

__device__ inline int length_of(const LayoutInPlace& p, int row) {
  const int64_t length = p.lengths[row] < 1 ? 1 : p.lengths[row];
  return int(length < p.steps ? length : p.steps);
}

__device__ inline int sum_of_warp(int value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

__device__ inline void rank_row(const LayoutInPlace& p, int row, int lane) {
  const int own = length_of(p, row);
  int before = 0;
  for (int other = lane; other < p.rows; other += 32) {
    const int length = length_of(p, other);
    before += length > own || (length == own && other < row);
  }
  before = sum_of_warp(before);
  if (lane == 0) {
    p.order[before] = row;
    p.ranks[row] = before;
  }
}

__device__ inline void begin_step(const LayoutInPlace& p, int step, int lane) {
  int alive = 0, start = 0;
  for (int row = lane; row < p.rows; row += 32) {
    const int length = length_of(p, row);
    alive += length > step;
    start += length < step ? length : step;
  }
  alive = sum_of_warp(alive);
  start = sum_of_warp(start);
  if (lane == 0) {
    p.starts[step] = start;
    if (step < p.steps) p.batch_sizes[step] = alive;
  }
}

__global__ void __launch_bounds__(kThreads) rank_rows(const __grid_constant__ LayoutInPlace p) {
  const int lane = int(threadIdx.x % 32);
  const int64_t item = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32, step = item - p.rows;
  if (step < 0) {
    rank_row(p, int(item), lane);
  } else if (step <= p.steps) {
    begin_step(p, int(step), lane);
  }
}

__global__ void __launch_bounds__(kThreads) write_positions(const __grid_constant__ LayoutInPlace p) {
  const int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (thread >= int64_t(p.steps) * p.rows) return;
  const int place = int(thread);
  const int step = p.batch_first ? place % p.steps : place / p.rows;
  const int row = p.batch_first ? place / p.steps : place % p.rows;
  const bool alive = step < length_of(p, row), known = p.lengths[row] >= 1 && p.lengths[row] <= p.steps;
  const int64_t position = alive ? p.starts[step] + p.ranks[row] : -1;
  p.places[place] = position;
  if (alive) p.positions[position] = known ? place : -1;
  if (place >= p.starts[p.steps]) p.positions[place] = -1;
}

}  // namespace

cudaError_t launch_layout_in_place(const LayoutInPlace& layout, cudaStream_t stream) {
  const int64_t items = int64_t(layout.rows) + layout.steps + 1, total = int64_t(layout.steps) * layout.rows;
  const auto blocks = [](int64_t count, int each) { return unsigned((count + each - 1) / each); };
  const cudaError_t error = launch<rank_rows>({{blocks(items, kWarps), 1, 1}, kThreads}, stream, layout);
  if (error != cudaSuccess || total == 0) return error;
  return launch<write_positions>({{blocks(total, kThreads), 1, 1}, kThreads}, stream, layout);
}

}  // namespace textclf_fast::cuda

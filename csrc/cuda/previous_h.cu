// A warp a position: it finds its step among the offsets, which are in the nearest cache, and copies a row.
#include "previous_h.h"

namespace textclf_fast::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// Where a row of h is that step `t` of row `row` left; null before the first step.
template <class Word>
__device__ inline const Word* left_by(const PreviousH<Word>& p, int t, int row, int direction, int directions) {
  if (t >= 0 && t < p.steps) {
    const int start = p.offsets ? p.offsets[t] : t * p.rows, end = p.offsets ? p.offsets[t + 1] : start + p.rows;
    // Batch sizes on the device may add up to more than N.
    if (row < end - start && start < p.positions - row)
      return p.output + (int64_t(start + row) * directions + direction) * p.hidden;
  }
  return p.h0 + (int64_t(direction) * p.rows + row) * p.hidden;
}

template <class Word>
__global__ void __launch_bounds__(kThreads) previous_h(const __grid_constant__ PreviousH<Word> p) {
  const int position = int(blockIdx.x) * kWarps + int(threadIdx.x / 32);
  const int direction = int(blockIdx.y), directions = int(gridDim.y);
  if (position >= p.positions) return;
  int low = 0, high = p.steps;  // the last step that begins at the position or before
  if (p.offsets) {
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (p.offsets[middle] <= position ? low : high) = middle;
    }
  } else {
    low = position / p.rows;
  }
  const int start = p.offsets ? p.offsets[low] : low * p.rows, end = p.offsets ? p.offsets[low + 1] : start + p.rows;
  const int row = position - start;
  // Nor need they be the batch's.
  const bool there = position < end && row < p.rows;
  const Word* from = there ? left_by(p, direction == 0 ? low - 1 : low + 1, row, direction, directions) : nullptr;
  Word* to = p.previous + (int64_t(direction) * p.positions + position) * p.hidden;
  for (int unit = int(threadIdx.x % 32); unit < p.hidden; unit += 32) to[unit] = there ? from[unit] : Word(0);
}

}  // namespace

template <class Word>
cudaError_t launch_previous_h(const PreviousH<Word>& layer, int directions, cudaStream_t stream) {
  const unsigned blocks = unsigned((layer.positions + kWarps - 1) / kWarps);
  return launch<previous_h<Word>>({{blocks, unsigned(directions), 1}, kThreads}, stream, layer);
}

template cudaError_t launch_previous_h(const PreviousH<uint16_t>&, int, cudaStream_t);
template cudaError_t launch_previous_h(const PreviousH<uint32_t>&, int, cudaStream_t);
template cudaError_t launch_previous_h(const PreviousH<uint64_t>&, int, cudaStream_t);

}  // namespace textclf_fast::cuda

// One block: T numbers are some kilobytes. Each thread adds up its own consecutive ones, then the threads' sums are
// scanned.
#include "lstm_offsets.h"

namespace textclf_fast::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int64_t kMost = 0x7fffffff;

// At most kMost: sums of two stay far from an overflow.
__device__ inline int64_t add(int64_t a, int64_t b) {
  a = a < 0 ? 0 : a < kMost ? a : kMost;
  b = b < 0 ? 0 : b < kMost ? b : kMost;
  return a + b < kMost ? a + b : kMost;
}

__global__ void __launch_bounds__(kThreads) step_offsets(const __grid_constant__ StepOffsets p) {
  auto* warp_sums = reinterpret_cast<int64_t*>(dynamic_shared());
  const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int each = (p.steps + kThreads - 1) / kThreads, first = thread * each;
  const int end = first + each < p.steps ? first + each : p.steps;
  int64_t own = 0;
  for (int t = first; t < end; ++t) own = add(own, p.batch_sizes[t]);

  int64_t before = own;  // up to this thread's, in its warp
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int64_t other = shuffle_up(before, distance);
    if (lane >= distance) before = add(before, other);
  }
  if (lane == 31) warp_sums[warp] = before;
  const int64_t up_to_previous = shuffle_up(before, 1);
  sync_block();
  int64_t sum = lane == 0 ? 0 : up_to_previous;
  for (int w = 0; w < warp; ++w) sum = add(sum, warp_sums[w]);

  if (thread == 0) p.offsets[0] = 0;
  for (int t = first; t < end; ++t) {
    sum = add(sum, p.batch_sizes[t]);
    p.offsets[t + 1] = int32_t(sum);
  }
}

}  // namespace

cudaError_t launch_step_offsets(const StepOffsets& steps, cudaStream_t stream) {
  return launch<step_offsets>({{1, 1, 1}, kThreads, kWarps * sizeof(int64_t)}, stream, steps);
}

}  // namespace textclf_fast::cuda

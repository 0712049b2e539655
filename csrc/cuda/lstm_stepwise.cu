// The stepwise family: any H, any GPU. A GEMM per step (by the caller) and this kernel; memory-bound, so it is kept
// plain.
#include <algorithm>

#include "lstm_stepwise.h"

namespace textclf_fast::cuda {
namespace {

constexpr int kThreads = 256;
// A grid-stride loop takes what is beyond; enough blocks to fill any GPU (132 SMs * 8 blocks of 256 threads on an
// H100).
constexpr int64_t kMaxBlocks = 2048;

template <class T>
__global__ void __launch_bounds__(kThreads) lstm_step_kernel(LstmStep<T> step) {
  const int64_t count = step.rows * step.hidden, stride = int64_t(gridDim.x) * kThreads;
  for (int64_t e = int64_t(blockIdx.x) * kThreads + threadIdx.x; e < count; e += stride) lstm_step_element(step, e);
}

}  // namespace

template <class T>
void launch_lstm_step(const LstmStep<T>& step, cudaStream_t stream) {
  const int64_t blocks = std::min((step.rows * step.hidden + kThreads - 1) / kThreads, kMaxBlocks);
  lstm_step_kernel<T><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(step);
}

template void launch_lstm_step(const LstmStep<float>&, cudaStream_t);
template void launch_lstm_step(const LstmStep<double>&, cudaStream_t);

}  // namespace textclf_fast::cuda

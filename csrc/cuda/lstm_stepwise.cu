// A thread an element; memory-bound, so it is kept plain.
#include "lstm_stepwise.h"

namespace textclf_fast::cuda {
namespace {

constexpr int kThreads = 256;

template <class Number>
__global__ void __launch_bounds__(kThreads) lstm_step(const __grid_constant__ LstmStep<Number> step) {
  const int64_t element = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (element < step.rows * step.hidden) lstm_step_element(step, element);
}

}  // namespace

template <class Number>
cudaError_t launch_lstm_step(const LstmStep<Number>& step, cudaStream_t stream) {
  const int64_t blocks = (step.rows * step.hidden + kThreads - 1) / kThreads;
  return launch<lstm_step<Number>>({{unsigned(blocks), 1, 1}, kThreads}, stream, step);
}

template cudaError_t launch_lstm_step(const LstmStep<double>&, cudaStream_t);
template cudaError_t launch_lstm_step(const LstmStep<float>&, cudaStream_t);
template cudaError_t launch_lstm_step(const LstmStep<BFloat16>&, cudaStream_t);
template cudaError_t launch_lstm_step(const LstmStep<Half>&, cudaStream_t);

}  // namespace textclf_fast::cuda

// A thread an element; memory-bound, so it is kept plain.
#include "lstm_backward_stepwise.h"

namespace textclf_fast::cuda {
namespace {

constexpr int kThreads = 256;

template <class Number>
__global__ void __launch_bounds__(kThreads) lstm_backward_step(const __grid_constant__ BackwardStep<Number> step) {
  using std::tanh;
  using Numbers = StepNumbers<Number>;
  using Value = StepValue<Number>;
  const StepwiseBackward<Number>& p = step.layer;
  const int64_t element = int64_t(blockIdx.x) * kThreads + threadIdx.x, hidden = p.shape.hidden;
  if (element >= step.rows * hidden) return;
  const int64_t row = element / hidden, unit = element % hidden, d = step.direction;
  const int64_t state_at = d * p.shape.rows * hidden + element, saved_at = d * p.shape.positions + step.position + row;

  Value before = 0;
  if (row < step.before_rows) {
    before = Numbers::value(p.cells[(d * p.shape.positions + step.before_position + row) * hidden + unit]);
  } else if (p.c0) {
    before = Numbers::value(p.c0[state_at]);
  }
  Value dh = p.grad_h[state_at], dc = p.grad_c[state_at];
  if (p.grad_output)
    dh += Numbers::value(p.grad_output[((step.position + row) * p.shape.directions + d) * hidden + unit]);
  if (p.grad_cells) dc += Numbers::value(p.grad_cells[saved_at * hidden + unit]);

  const Number* gate = p.activations + saved_at * 4 * hidden + unit;
  const Value i = Numbers::value(gate[0]), f = Numbers::value(gate[hidden]);
  const Value g = Numbers::value(gate[2 * hidden]), o = Numbers::value(gate[3 * hidden]);
  const Value tanh_c = tanh(Numbers::value(p.cells[saved_at * hidden + unit]));
  dc += dh * o * (1 - tanh_c * tanh_c);
  Number* to = p.grad_gates + saved_at * 4 * hidden + unit;
  to[0] = Numbers::number(dc * g * i * (1 - i));
  to[hidden] = Numbers::number(dc * before * f * (1 - f));
  to[2 * hidden] = Numbers::number(dc * i * (1 - g * g));
  to[3 * hidden] = Numbers::number(dh * tanh_c * o * (1 - o));
  p.grad_c[state_at] = dc * f;
}

}  // namespace

template <class Number>
cudaError_t launch_backward_step(const BackwardStep<Number>& step, cudaStream_t stream) {
  const int64_t blocks = (step.rows * step.layer.shape.hidden + kThreads - 1) / kThreads;
  return launch<lstm_backward_step<Number>>({{unsigned(blocks), 1, 1}, kThreads}, stream, step);
}

template cudaError_t launch_backward_step(const BackwardStep<double>&, cudaStream_t);
template cudaError_t launch_backward_step(const BackwardStep<float>&, cudaStream_t);
template cudaError_t launch_backward_step(const BackwardStep<BFloat16>&, cudaStream_t);
template cudaError_t launch_backward_step(const BackwardStep<Half>&, cudaStream_t);

}  // namespace textclf_fast::cuda

// The stepwise family: any H, any GPU. The caller's GEMM and one kernel a step.
#pragma once

#include "device.h"
#include "lstm_step.h"

namespace textclf_fast::cuda {

// Number: double, float, BFloat16 or Half.
template <class Number>
struct StepwiseForward {
  using Value = StepValue<Number>;

  LstmShape shape;         // batch_sizes and offsets on the host
  const Value* gates;      // as in LstmStep
  const int64_t* index;    // likewise
  const Value* recurrent;  // (B, 4H): where the GEMM puts its result
  Number* h;               // (D, B, H): h0 at first, h_n in the end
  Value* c;                // (D, B, H): likewise
  Number* output;          // as in LstmStep, as what follows
  Number* activations;
  Number* cells;
};

// One step for all rows alive, on the current device. step.rows * step.hidden must be at least 1.
template <class Number>
cudaError_t launch_lstm_step(const LstmStep<Number>& step, cudaStream_t stream);

// All steps of both directions. multiply(d, b): h[d][:b] (b, H) times W_hh[d] transposed, into recurrent[:b].
//
// A step overwrites the rows that are alive and leaves the others, in whichever direction it walks: what remains at the
// end is h_n and c_n.
template <class Number, class Multiply>
cudaError_t forward_stepwise(const StepwiseForward<Number>& p, const Multiply& multiply, cudaStream_t stream) {
  const LstmShape& shape = p.shape;
  for (int64_t d = 0; d < shape.directions; ++d)
    for (int64_t step = 0; step < shape.steps; ++step) {
      const int64_t t = d == 0 ? step : shape.steps - 1 - step;
      const int64_t rows = shape.batch_sizes[t], states = d * shape.rows * shape.hidden;
      multiply(d, rows);
      const cudaError_t error = launch_lstm_step<Number>({.gates = p.gates,
                                                          .index = p.index,
                                                          .recurrent = p.recurrent,
                                                          .h = p.h + states,
                                                          .c = p.c + states,
                                                          .output = p.output,
                                                          .activations = p.activations,
                                                          .cells = p.cells,
                                                          .position = shape.offsets[t],
                                                          .rows = rows,
                                                          .positions = shape.positions,
                                                          .hidden = shape.hidden,
                                                          .gate_rows = shape.gate_rows,
                                                          .directions = shape.directions,
                                                          .direction = d},
                                                         stream);
      if (error != cudaSuccess) return error;
    }
  return cudaSuccess;
}

}  // namespace textclf_fast::cuda

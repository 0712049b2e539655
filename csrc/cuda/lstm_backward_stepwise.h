// The stepwise family's backward: any H, any GPU. One kernel and the caller's GEMM a step.
#pragma once

#include "../lstm_problem.h"
#include "device.h"
#include "lstm_step.h"

namespace textclf_fast::cuda {

// Number: double, float, BFloat16 or Half. Letters as in ../lstm_problem.h.
template <class Number>
struct StepwiseBackward {
  using Value = StepValue<Number>;

  LstmShape shape;            // batch_sizes and offsets on the host
  const Number* activations;  // (D, N, 4H)
  const Number* cells;        // (D, N, H)
  const Number* c0;           // (D, B, H); null: zero
  const Number* grad_output;  // (N, D, H); null: zero
  const Number* grad_cells;   // (D, N, H); null: zero
  Number* grad_gates;         // (D, N, 4H)
  Value* grad_h;              // (D, B, H): grad_h_n at first, grad_h0 in the end; read by a step, written by the GEMM
  Value* grad_c;              // (D, B, H): grad_c_n at first, grad_c0 in the end
};

// One step of one direction, of all rows alive.
template <class Number>
struct BackwardStep {
  StepwiseBackward<Number> layer;
  int64_t direction;
  int64_t position;         // of the step's first row
  int64_t rows;             // b
  int64_t before_position;  // of the forward's step before it
  int64_t before_rows;      // 0 where there is none
};

// On the current device. step.rows must be at least 1.
template <class Number>
cudaError_t launch_backward_step(const BackwardStep<Number>& step, cudaStream_t stream);

// All steps of both directions, against the forward's order. multiply(d, at, b): grad_gates[d][at:at + b] (b, 4H) times
// W_hh[d], into grad_h[d][:b].
//
// A step and its GEMM overwrite the rows that are alive and leave the others: what remains is grad_h0 and grad_c0.
template <class Number, class Multiply>
cudaError_t backward_stepwise(const StepwiseBackward<Number>& p, const Multiply& multiply, cudaStream_t stream) {
  const LstmShape& shape = p.shape;
  for (int64_t d = 0; d < shape.directions; ++d)
    for (int64_t step = 0; step < shape.steps; ++step) {
      const int64_t t = d == 0 ? shape.steps - 1 - step : step, before = d == 0 ? t - 1 : t + 1;
      const bool is_first = before < 0 || before >= shape.steps;
      const cudaError_t error = launch_backward_step<Number>({.layer = p,
                                                              .direction = d,
                                                              .position = shape.offsets[t],
                                                              .rows = shape.batch_sizes[t],
                                                              .before_position = is_first ? 0 : shape.offsets[before],
                                                              .before_rows = is_first ? 0 : shape.batch_sizes[before]},
                                                             stream);
      if (error != cudaSuccess) return error;
      multiply(d, shape.offsets[t], shape.batch_sizes[t]);
    }
  return cudaSuccess;
}

}  // namespace textclf_fast::cuda

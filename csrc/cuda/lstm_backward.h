// What the persistent backward kernels are told, and their launcher. Letters and layout as in ../lstm_problem.h.
#pragma once

#include "device.h"
#include "lstm_plan.h"
#include "products.h"
#include "sums.h"

namespace textclf_fast::cuda {

template <class Number>
struct PersistentBackward {
  BackwardTiles tiles;
  int steps;                  // T
  int hidden;                 // H
  int rows;                   // B
  int positions;              // N
  const int32_t* offsets;     // (T + 1) on the device, as in the forward; null: at t * B
  const Number* w_hh;         // (D, 4H, H)
  const Number* activations;  // (D, N, 4H)
  const Number* cells;        // (D, N, H)
  const Number* c0;           // (D, B, H); null: zero
  const Number* grad_output;  // (N, D, H); null: zero, as the next three
  const Number* grad_h_n;     // (D, B, H)
  const Number* grad_c_n;     // (D, B, H)
  const Number* grad_cells;   // (D, N, H)
  Number* grad_gates;         // (D, N, 4H), of every position's gates before their non-linearity; null: nobody asks
  Number* grad_h0;            // (D, B, H)
  Number* grad_c0;            // (D, B, H)
  GridWorkspace workspace;
  bool in_pairs;  // set by the launcher: two neighbouring units may be read and written as one
};

// All steps and both directions in one launch, on the current device. Product: one of products.h; the plan is for it,
// and not a stepwise one.
template <class Product>
cudaError_t launch_backward(const BackwardPlan& plan, PersistentBackward<typename Product::Number> backward,
                            int directions, cudaStream_t stream);

}  // namespace textclf_fast::cuda

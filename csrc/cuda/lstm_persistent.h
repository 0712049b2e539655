// What the persistent forward kernels are told, and their launcher. Letters and layout as in ../lstm_problem.h.
#pragma once

#include "device.h"
#include "lstm_plan.h"
#include "products.h"
#include "teams.h"

namespace textclf_fast::cuda {

template <class Number>
struct PersistentForward {
  Tiles tiles;
  int steps;               // T
  int hidden;              // H
  int rows;                // B
  int positions;           // N
  int64_t gate_rows;       // R, below 2^32 - 1
  const int32_t* offsets;  // (T + 1) on the device: where each step begins; null: at t * B. What lies outside of
                           // 0 .. N is not touched
  const float* gates;      // (D, R, 4H): input half of the gates, biases included
  const int64_t* index;    // (N): the row of `gates` that a position reads; null: its own. Where it is outside of
                           // 0 .. R - 1 the row is NaN from there on
  const Number* w_hh;      // (D, 4H, H)
  const Number* h0;        // (D, B, H); null: zero
  const Number* c0;        // (D, B, H); null: zero
  Number* output;          // (N, D, H); null where it is not needed
  Number* h_n;             // (D, B, H)
  Number* c_n;             // (D, B, H)
  Number* activations;     // (D, N, 4H): gates after their non-linearity; null in inference
  Number* cells;           // (D, N, H); null where they are not needed
  GridWorkspace workspace;
};

// All steps and both directions in one launch, on the current device. Product: one of products.h; the plan is for it,
// and not a stepwise one.
template <class Product>
cudaError_t launch_persistent(const Plan& plan, PersistentForward<typename Product::Number> forward, int directions,
                              cudaStream_t stream);

}  // namespace textclf_fast::cuda

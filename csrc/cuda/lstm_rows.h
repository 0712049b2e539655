// What the persistent kernels of the forward and the backward share: which rows are alive at a step, and the cell's
// functions.
#pragma once

#include "device.h"

namespace textclf_fast::cuda {

__device__ inline float sigmoid(float x) { return fast_reciprocal(1.0f + fast_exp(-x)); }
// Strict float32 takes the library's, which is exact near 0.
template <class Product>
__device__ inline float tangent(float x) {
  return Product::kStrict ? tanhf(x) : 2.0f * sigmoid(2.0f * x) - 1.0f;
}

// Which of a team's rows are alive at a step, and where they are.
struct StepRows {
  int position;  // of the team's first row
  int alive;
};

// Problem: PersistentForward or PersistentBackward.
template <class Problem>
__device__ inline StepRows rows_at(const Problem& p, int t, int first_row, int team_rows) {
  const int start = p.offsets ? p.offsets[t] : t * p.rows;
  const int end = p.offsets ? p.offsets[t + 1] : start + p.rows;
  // Offsets come from the device unseen: whatever they are, no row beyond the batch and no position beyond N.
  const int position = (start < p.positions ? start : p.positions) + first_row;
  const int here = (end < p.positions ? end : p.positions) - position;
  const int most = p.rows - first_row < team_rows ? p.rows - first_row : team_rows;
  return {position, start < 0 || here < 0 ? 0 : here < most ? here : most};
}

// The steps at which the row is alive: all before the first one at which it is not.
template <class Problem>
__device__ inline int steps_of(const Problem& p, int row) {
  if (!p.offsets) return p.steps;
  int low = 0, high = p.steps;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (p.offsets[middle + 1] - p.offsets[middle] > row) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace textclf_fast::cuda

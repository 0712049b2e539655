// The h that each position was computed from, one row a position: what W_hh's gradient is a GEMM with.
#pragma once

#include "device.h"

namespace textclf_fast::cuda {

// Word: an unsigned integer as large as the layer's numbers, which are copied as they are. Letters as in
// ../lstm_problem.h.
template <class Word>
struct PreviousH {
  const int32_t* offsets;  // (T + 1) on the device: where each step begins; null: at t * B
  const Word* output;      // (N, D, H)
  const Word* h0;          // (D, B, H)
  Word* previous;          // (D, N, H); zero where a position is past all steps
  int steps;               // T
  int hidden;              // H
  int rows;                // B
  int positions;           // N
};

template <class Word>
cudaError_t launch_previous_h(const PreviousH<Word>& layer, int directions, cudaStream_t stream);

}  // namespace textclf_fast::cuda

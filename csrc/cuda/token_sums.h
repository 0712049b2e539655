// Sums of rows by token, in one order always and without atomics: the gradient of a gate table.
#pragma once

#include "device.h"
#include "lstm_step.h"

namespace textclf_fast::cuda {

// Sorted positions are cut in pieces of this many, so that a token that is everywhere is not one block's work.
constexpr int kPiecePositions = 64;

// Number: double, float, BFloat16 or Half.
template <class Number>
struct TokenSums {
  using Value = StepValue<Number>;

  const int64_t* tokens;  // (N), sorted; what is outside of 0 .. R - 1 is left out
  const int64_t* order;   // (N): the position that each of them is at
  const Number* values;   // (D, N, W)
  Value* sums;            // (D, R, W), zero before
  Value* carries;         // (D, pieces, W): of tokens that began in an earlier piece
  int64_t positions;      // N
  int64_t rows;           // R
  int64_t width;          // W

  int64_t pieces() const { return (positions + kPiecePositions - 1) / kPiecePositions; }
};

// positions must be at least 1.
template <class Number>
cudaError_t launch_token_sums(const TokenSums<Number>& sums, int directions, cudaStream_t stream);

}  // namespace textclf_fast::cuda

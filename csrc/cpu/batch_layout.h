// Where the real positions of a padded batch are, in packed order (lstm_problem.h).
#pragma once

#include <cstdint>
#include <tuple>

#include "../tensor_checks.h"

namespace textclf_fast::cpu {

struct PaddedBatch {
  int64_t steps, rows;
  int64_t step_stride, row_stride;  // position (t, b) is at t * step_stride + b * row_stride
};

// Tokens (U) and index (N) of `count` ids, each of which is checked: see csrc/ops.cpp.
std::tuple<Tensor, Tensor> distinct_tokens(const int64_t* ids, int64_t count, int64_t vocab_size);

// Writes rows sorted by length, longest first (stable): `order` (B), and `place` (B), its inverse.
void sort_rows(const int64_t* lengths, int64_t rows, int64_t* order, int64_t* place);

// For sorted rows: `batch_sizes` (longest length) and `positions` (sum of lengths).  Each length in 1 .. steps.
void lay_out(const PaddedBatch& batch, const int64_t* lengths, const int64_t* order, int64_t* batch_sizes,
             int64_t* positions);

// Throws where a length is not in 1 .. steps.
void check_lengths(const int64_t* lengths, int64_t rows, int64_t steps);

}  // namespace textclf_fast::cpu

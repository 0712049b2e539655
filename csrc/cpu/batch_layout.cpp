// Ops on the integers of a batch: which tokens it holds, and where its real positions are.
#include "batch_layout.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

#include "../tensor_checks.h"
#include "tensors.h"

namespace textclf_fast::cpu {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> packed_layout(const Tensor& lengths, int64_t steps, int64_t step_stride,
                                                         int64_t row_stride) {
  check_int64_vector(lengths, "lengths");
  const Tensor lengths_c = dense(lengths);
  const int64_t rows = lengths_c.size(0);
  const auto* length = static_cast<const int64_t*>(lengths_c.const_data_ptr());
  STD_TORCH_CHECK(rows > 0, "lengths: expected one length a row, got none");
  check_lengths(length, rows, steps);

  Tensor sorted = uninitialized(lengths_c, {rows}), unsorted = uninitialized(lengths_c, {rows});
  auto* order = static_cast<int64_t*>(sorted.mutable_data_ptr());
  sort_rows(length, rows, order, static_cast<int64_t*>(unsorted.mutable_data_ptr()));
  Tensor batch_sizes = uninitialized(lengths_c, {length[order[0]]});
  Tensor positions = uninitialized(lengths_c, {std::accumulate(length, length + rows, int64_t(0))});
  lay_out({steps, rows, step_stride, row_stride}, length, order, static_cast<int64_t*>(batch_sizes.mutable_data_ptr()),
          static_cast<int64_t*>(positions.mutable_data_ptr()));
  return {positions, batch_sizes, sorted, unsorted};
}

std::tuple<Tensor, Tensor> distinct_tokens_op(const Tensor& ids, int64_t vocab_size) {
  check_int64_vector(ids, "ids");
  const Tensor ids_c = dense(ids);
  return distinct_tokens(data<int64_t>(ids_c), ids_c.size(0), vocab_size);
}

}  // namespace

std::tuple<Tensor, Tensor> distinct_tokens(const int64_t* id, int64_t count, int64_t vocab_size) {
  STD_TORCH_CHECK(vocab_size > 0, "vocab_size: expected at least 1, got ", vocab_size);
  Tensor index = uninitialized({count}, ScalarType::Long);
  auto* place = static_cast<int64_t*>(index.mutable_data_ptr());
  std::vector<int64_t> tokens;
  std::vector<int64_t> place_of(size_t(vocab_size), -1);  // 80 kB at V = 10,000: one pass, no sorting, no hashing
  for (int64_t n = 0; n < count; ++n) {
    STD_TORCH_CHECK(uint64_t(id[n]) < uint64_t(vocab_size), "ids: token id ", id[n], " at position ", n,
                    ", expected 0 <= id < vocab_size = ", vocab_size);
    int64_t& p = place_of[size_t(id[n])];
    if (p < 0) {
      p = int64_t(tokens.size());
      tokens.push_back(id[n]);
    }
    place[n] = p;
  }
  Tensor distinct = uninitialized({int64_t(tokens.size())}, ScalarType::Long);
  std::copy(tokens.begin(), tokens.end(), static_cast<int64_t*>(distinct.mutable_data_ptr()));
  return {distinct, index};
}

void check_lengths(const int64_t* lengths, int64_t rows, int64_t steps) {
  for (int64_t b = 0; b < rows; ++b)
    STD_TORCH_CHECK(lengths[b] >= 1 && lengths[b] <= steps, "lengths: lengths[", b, "] = ", lengths[b],
                    ", expected 1 <= length <= ", steps, " (the steps of the padded input)");
}

void sort_rows(const int64_t* lengths, int64_t rows, int64_t* order, int64_t* place) {
  std::iota(order, order + rows, int64_t(0));
  std::stable_sort(order, order + rows, [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  for (int64_t i = 0; i < rows; ++i) place[order[i]] = i;
}

void lay_out(const PaddedBatch& batch, const int64_t* lengths, const int64_t* order, int64_t* batch_sizes,
             int64_t* positions) {
  int64_t alive = batch.rows;
  for (int64_t t = 0; t < lengths[order[0]]; ++t) {
    while (lengths[order[alive - 1]] <= t) --alive;
    batch_sizes[t] = alive;
    for (int64_t i = 0; i < alive; ++i) *positions++ = t * batch.step_stride + order[i] * batch.row_stride;
  }
}

}  // namespace textclf_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CPU, m) {
  m.impl("distinct_tokens", TORCH_BOX(&textclf_fast::cpu::distinct_tokens_op));
  m.impl("packed_layout", TORCH_BOX(&textclf_fast::cpu::packed_layout));
}

// A padded batch of token ids in packed order; and through a layer with frozen weights, whatever kernel the layer
// takes: what the ops embedding_lstm_inference and embedding_lstm_int8_inference share.
#pragma once

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "../lstm_problem.h"
#include "../tensor_checks.h"
#include "batch_layout.h"
#include "tensors.h"

namespace textclf_fast::cpu {

// The batch in packed order, every id and length checked; owns what `shape` points to.
struct PaddedIds {
  PaddedBatch batch;
  Tensor ids;                                 // contiguous
  std::optional<Tensor> lengths;              // contiguous
  std::vector<int64_t> order, place;          // (B), see sort_rows; empty where the rows are in order
  std::vector<int64_t> batch_sizes, offsets;  // (longest length), (longest length + 1)
  std::vector<int64_t> positions;             // (N), places in the padded batch; empty where packed is padded order
  std::vector<int64_t> packed;                // (N), the ids in packed order; empty where they are so already
  int64_t count = 0;                          // N

  const int64_t* index() const { return packed.empty() ? data<int64_t>(ids) : packed.data(); }
};

// ids (T, B), or (B, T) where batch_first; lengths (B), each in 1 .. T, or all T.  Throws where something does not fit.
PaddedIds lay_out_ids(const Tensor& ids, const std::optional<Tensor>& lengths, bool batch_first, int64_t vocab_size);

// Zeroes the padding of output (padded, `width` numbers a position): what no position writes.  32 rows of 256 steps,
// 58 % of them padding, H = 128: 2.4 MB.
template <class T>
void clear_padding(T* output, const PaddedIds& ids, int64_t width) {
  if (ids.place.empty()) return;
  const auto* lengths = data<int64_t>(ids.lengths);
  const PaddedBatch& batch = ids.batch;
  const int64_t row_bytes = (batch.steps - ids.count / batch.rows) * width * int64_t(sizeof(T));  // in the mean
  const int64_t grain = std::max<int64_t>(1, (int64_t(1) << 17) / std::max<int64_t>(1, row_bytes));
  torch::stable::parallel_for(0, batch.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      for (int64_t t = lengths[b]; t < batch.steps; ++t)
        std::fill_n(output + (t * batch.step_stride + b * batch.row_stride) * width, width, T{});
  });
}

// Rows of (D, B, H), or (D, B, P), from packed order to the caller's.
template <class T>
void unsort_rows(Tensor& state, const PaddedIds& ids) {
  if (ids.place.empty()) return;
  const int64_t directions = state.size(0), rows = state.size(1), hidden = state.size(2);
  T* at = mutable_data<T>(state);
  const std::vector<T> packed(at, at + directions * rows * hidden);
  for (int64_t d = 0; d < directions; ++d)
    for (int64_t b = 0; b < rows; ++b)
      std::copy_n(packed.data() + (d * rows + ids.place[size_t(b)]) * hidden, hidden, at + (d * rows + b) * hidden);
}

// output (T, B, D * P), or (B, T, D * P), zero past the lengths, or (0); h_n (D, B, P), c_n (D, B, H); P is H unless h
// is projected.
using Inferred = std::tuple<Tensor, Tensor, Tensor>;

// Has run(problem) compute the layer from zero states; table (D, V, 4H), contiguous, with the ids' V; results are like
// `like`.  The problem has no weights: those are the caller's.
template <class T, class Run>
Inferred infer_padded(const PaddedIds& ids, const Tensor& table, const Tensor& like, bool need_output, const Run& run,
                      int64_t projected = 0) {
  const int64_t directions = table.size(0), hidden = table.size(2) / 4, rows = ids.batch.rows;
  const int64_t width = projected ? projected : hidden;
  Tensor output =
      new_output(like, need_output ? std::vector<int64_t>{ids.ids.size(0), ids.ids.size(1), directions * width}
                                   : std::vector<int64_t>{0});
  Tensor h_n = uninitialized(like, {directions, rows, width});
  Tensor c_n = uninitialized(like, {directions, rows, hidden});
  T* out = need_output ? mutable_data<T>(output) : nullptr;
  if (out) clear_padding(out, ids, directions * width);
  const LstmShape shape{int64_t(ids.batch_sizes.size()),
                        rows,
                        ids.count,
                        directions,
                        hidden,
                        table.size(1),
                        ids.batch_sizes.data(),
                        ids.offsets.data(),
                        projected};
  run(LstmForward<T>{shape, data<Accumulator<T>>(table), ids.index(), nullptr, nullptr, nullptr, out,
                     ids.positions.empty() ? nullptr : ids.positions.data(), mutable_data<T>(h_n), mutable_data<T>(c_n),
                     nullptr, nullptr});
  unsort_rows<T>(h_n, ids);
  unsort_rows<T>(c_n, ids);
  return {output, h_n, c_n};
}

}  // namespace textclf_fast::cpu

// A padded batch of token ids through a layer with frozen weights: the layout, the look-up and the recurrence in one
// op.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "../tensor_checks.h"
#include "batch_layout.h"
#include "launch.h"
#include "tensors.h"

namespace textclf_fast::cpu {
namespace {

// The batch in packed order.
struct Layout {
  std::vector<int64_t> order, place;          // (B), see sort_rows; empty where the rows are in order
  std::vector<int64_t> batch_sizes, offsets;  // (longest length), (longest length + 1)
  std::vector<int64_t> positions;             // (N), places in the padded batch; empty where packed is padded order
  int64_t count = 0;                          // N
};

Layout make_layout(const PaddedBatch& batch, const int64_t* lengths) {
  Layout layout;
  const bool dense =
      !lengths || std::all_of(lengths, lengths + batch.rows, [&](int64_t n) { return n == batch.steps; });
  if (dense) {
    layout.count = batch.steps * batch.rows;
    layout.batch_sizes.assign(size_t(batch.steps), batch.rows);
    if (batch.row_stride != 1 && batch.rows > 1) {
      layout.positions.reserve(size_t(layout.count));
      for (int64_t t = 0; t < batch.steps; ++t)
        for (int64_t b = 0; b < batch.rows; ++b)
          layout.positions.push_back(t * batch.step_stride + b * batch.row_stride);
    }
  } else {
    layout.order.resize(size_t(batch.rows));
    layout.place.resize(size_t(batch.rows));
    sort_rows(lengths, batch.rows, layout.order.data(), layout.place.data());
    for (int64_t b = 0; b < batch.rows; ++b) layout.count += lengths[b];
    layout.batch_sizes.resize(size_t(lengths[layout.order[0]]));
    layout.positions.resize(size_t(layout.count));
    lay_out(batch, lengths, layout.order.data(), layout.batch_sizes.data(), layout.positions.data());
  }
  layout.offsets.reserve(layout.batch_sizes.size() + 1);
  layout.offsets.push_back(0);
  for (const int64_t size : layout.batch_sizes) layout.offsets.push_back(layout.offsets.back() + size);
  return layout;
}

// The ids in packed order, each checked; `copy` is used where they are not so already.
const int64_t* packed_ids(const Tensor& ids, const Layout& layout, int64_t vocab_size, std::vector<int64_t>& copy) {
  const auto* id = data<int64_t>(ids);
  if (!layout.positions.empty()) {
    copy.resize(size_t(layout.count));
    for (int64_t n = 0; n < layout.count; ++n) copy[size_t(n)] = id[layout.positions[size_t(n)]];
    id = copy.data();
  }
  bool good = true;
  for (int64_t n = 0; n < layout.count; ++n) good &= uint64_t(id[n]) < uint64_t(vocab_size);
  for (int64_t n = 0; !good && n < layout.count; ++n)
    STD_TORCH_CHECK(uint64_t(id[n]) < uint64_t(vocab_size), "ids: token id ", id[n], ", expected 0 <= id < ",
                    vocab_size, " (the rows of table)");
  return id;
}

// Rows of (D, B, H) from packed order to the caller's.
template <class T>
void unsort_rows(Tensor& state, const Layout& layout, int64_t directions, int64_t rows, int64_t hidden) {
  if (layout.place.empty()) return;
  T* at = mutable_data<T>(state);
  const std::vector<T> packed(at, at + directions * rows * hidden);
  for (int64_t d = 0; d < directions; ++d)
    for (int64_t b = 0; b < rows; ++b)
      std::copy_n(packed.data() + (d * rows + layout.place[size_t(b)]) * hidden, hidden, at + (d * rows + b) * hidden);
}

// Zeroes the padding: what no position writes.
template <class T>
void clear_padding(T* output, const PaddedBatch& batch, const int64_t* lengths, int64_t width) {
  for (int64_t b = 0; b < batch.rows; ++b)
    for (int64_t t = lengths[b]; t < batch.steps; ++t)
      std::fill_n(output + (t * batch.step_stride + b * batch.row_stride) * width, width, T(0));
}

std::tuple<Tensor, Tensor, Tensor> embedding_lstm_inference(const Tensor& table, const Tensor& ids,
                                                            const std::optional<Tensor>& lengths, bool batch_first,
                                                            const Tensor& w_hh, const std::optional<Tensor>& panels,
                                                            bool need_output) {
  const std::pair<int64_t, int64_t> sizes = check_recurrent(w_hh);
  const int64_t directions = sizes.first, hidden = sizes.second;  // a lambda captures no structured bindings in clang
  check_shape(table, "table", {directions, table.dim() == 3 ? table.size(1) : 0, 4 * hidden});
  const bool mixed = w_hh.scalar_type() == ScalarType::BFloat16 && table.scalar_type() == ScalarType::Float;
  if (!mixed) check_like(w_hh, "w_hh", table, "table");
  if (computes_as_float(w_hh)) {
    const Tensor w_hh_f = as(ScalarType::Float, w_hh);
    const auto [output, h_n, c_n] =
        embedding_lstm_inference(table, ids, lengths, batch_first, w_hh_f, std::nullopt, need_output);
    constexpr auto kBFloat16 = ScalarType::BFloat16;
    return {as(kBFloat16, output), as(kBFloat16, h_n), as(kBFloat16, c_n)};
  }
  STD_TORCH_CHECK(ids.dim() == 2, "ids: expected shape (T, B), got ", shape_text(ids));
  STD_TORCH_CHECK(ids.scalar_type() == ScalarType::Long, "ids: expected dtype int64");
  STD_TORCH_CHECK(ids.is_cpu(), "ids: expected a tensor on the CPU");
  STD_TORCH_CHECK(ids.numel() > 0, "ids: expected at least one token, got shape ", shape_text(ids));
  const int64_t rows = ids.size(batch_first ? 0 : 1), steps = ids.size(batch_first ? 1 : 0);
  const PaddedBatch batch{steps, rows, batch_first ? 1 : rows, batch_first ? steps : 1};
  std::optional<Tensor> lengths_c;
  if (lengths) {
    check_int64_vector(*lengths, "lengths");
    STD_TORCH_CHECK(lengths->is_cpu(), "lengths: expected a tensor on the CPU");
    check_shape(*lengths, "lengths", {rows});
    lengths_c = torch::stable::contiguous(*lengths);
    check_lengths(data<int64_t>(lengths_c), rows, steps);
  }
  const Layout layout = make_layout(batch, data<int64_t>(lengths_c));
  const Tensor ids_c = torch::stable::contiguous(ids), table_c = torch::stable::contiguous(table);
  const Tensor w_hh_c = torch::stable::contiguous(w_hh);
  std::vector<int64_t> copy;
  const int64_t* index = packed_ids(ids_c, layout, table.size(1), copy);

  const std::vector<int64_t> output_shape =
      !need_output ? std::vector<int64_t>{0} : std::vector<int64_t>{ids.size(0), ids.size(1), directions * hidden};
  Tensor output = new_output(w_hh, output_shape);
  Tensor h_n = torch::stable::new_empty(w_hh, {directions, rows, hidden});
  Tensor c_n = torch::stable::new_empty(w_hh, {directions, rows, hidden});
  const LstmShape shape{int64_t(layout.batch_sizes.size()),
                        rows,
                        layout.count,
                        directions,
                        hidden,
                        table.size(1),
                        layout.batch_sizes.data(),
                        layout.offsets.data()};
  dispatch(w_hh, "w_hh", [&]<class T>(T) {
    if (panels) check_panels<T>(*panels, w_hh, directions, hidden);
    T* out = need_output ? mutable_data<T>(output) : nullptr;
    if (out && !layout.place.empty()) clear_padding(out, batch, data<int64_t>(lengths_c), directions * hidden);
    run_forward<T>({shape, data<Accumulator<T>>(table_c), index, data<T>(w_hh_c), nullptr, nullptr, out,
                    layout.positions.empty() ? nullptr : layout.positions.data(), mutable_data<T>(h_n),
                    mutable_data<T>(c_n), nullptr, nullptr},
                   data<T>(panels));
    unsort_rows<T>(h_n, layout, directions, rows, hidden);
    unsort_rows<T>(c_n, layout, directions, rows, hidden);
  });
  return {output, h_n, c_n};
}

}  // namespace
}  // namespace textclf_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CPU, m) {
  m.impl("embedding_lstm_inference", TORCH_BOX(&textclf_fast::cpu::embedding_lstm_inference));
}

#include "padded_ids.h"

namespace textclf_fast::cpu {
namespace {

void make_layout(PaddedIds& ids) {
  const PaddedBatch& batch = ids.batch;
  const auto* lengths = data<int64_t>(ids.lengths);
  const bool dense =
      !lengths || std::all_of(lengths, lengths + batch.rows, [&](int64_t n) { return n == batch.steps; });
  if (dense) {
    ids.count = batch.steps * batch.rows;
    ids.batch_sizes.assign(size_t(batch.steps), batch.rows);
    if (batch.row_stride != 1 && batch.rows > 1) {
      ids.positions.reserve(size_t(ids.count));
      for (int64_t t = 0; t < batch.steps; ++t)
        for (int64_t b = 0; b < batch.rows; ++b) ids.positions.push_back(t * batch.step_stride + b * batch.row_stride);
    }
  } else {
    ids.order.resize(size_t(batch.rows));
    ids.place.resize(size_t(batch.rows));
    sort_rows(lengths, batch.rows, ids.order.data(), ids.place.data());
    for (int64_t b = 0; b < batch.rows; ++b) ids.count += lengths[b];
    ids.batch_sizes.resize(size_t(lengths[ids.order[0]]));
    ids.positions.resize(size_t(ids.count));
    lay_out(batch, lengths, ids.order.data(), ids.batch_sizes.data(), ids.positions.data());
  }
  ids.offsets.reserve(ids.batch_sizes.size() + 1);
  ids.offsets.push_back(0);
  for (const int64_t size : ids.batch_sizes) ids.offsets.push_back(ids.offsets.back() + size);
}

void pack_ids(PaddedIds& ids, int64_t vocab_size) {
  if (!ids.positions.empty()) {
    const auto* padded = data<int64_t>(ids.ids);
    ids.packed.resize(size_t(ids.count));
    for (int64_t n = 0; n < ids.count; ++n) ids.packed[size_t(n)] = padded[ids.positions[size_t(n)]];
  }
  const int64_t* id = ids.index();
  bool good = true;
  for (int64_t n = 0; n < ids.count; ++n) good &= uint64_t(id[n]) < uint64_t(vocab_size);
  for (int64_t n = 0; !good && n < ids.count; ++n)
    STD_TORCH_CHECK(uint64_t(id[n]) < uint64_t(vocab_size), "ids: token id ", id[n], ", expected 0 <= id < ",
                    vocab_size, " (the rows of table)");
}

}  // namespace

PaddedIds lay_out_ids(const Tensor& ids, const std::optional<Tensor>& lengths, bool batch_first, int64_t vocab_size) {
  STD_TORCH_CHECK(ids.dim() == 2, "ids: expected shape (T, B), got ", shape_text(ids));
  STD_TORCH_CHECK(ids.scalar_type() == ScalarType::Long, "ids: expected dtype int64");
  STD_TORCH_CHECK(ids.is_cpu(), "ids: expected a tensor on the CPU");
  STD_TORCH_CHECK(ids.numel() > 0, "ids: expected at least one token, got shape ", shape_text(ids));
  const int64_t rows = ids.size(batch_first ? 0 : 1), steps = ids.size(batch_first ? 1 : 0);
  PaddedIds result;
  result.batch = {steps, rows, batch_first ? 1 : rows, batch_first ? steps : 1};
  if (lengths) {
    check_int64_vector(*lengths, "lengths");
    STD_TORCH_CHECK(lengths->is_cpu(), "lengths: expected a tensor on the CPU");
    check_shape(*lengths, "lengths", {rows});
    result.lengths = dense(*lengths);
    check_lengths(data<int64_t>(result.lengths), rows, steps);
  }
  result.ids = dense(ids);
  make_layout(result);
  pack_ids(result, vocab_size);
  return result;
}

}  // namespace textclf_fast::cpu

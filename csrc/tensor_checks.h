// Checks of an LSTM layer's tensors, shared by the devices: every message names the argument, its value and what was
// expected, and all are made before any memory is touched.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "lstm_problem.h"

namespace textclf_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// (Asked first: calling the operator looks its schema up by name, some 2 us.)
inline Tensor dense(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }
inline std::optional<Tensor> dense(const std::optional<Tensor>& t) {
  return t ? std::optional<Tensor>(dense(*t)) : std::nullopt;
}

inline std::string shape_text(const Tensor& t) {
  std::ostringstream s;
  s << "(";
  for (int64_t d = 0; d < t.dim(); ++d) s << (d ? ", " : "") << t.size(d);
  s << ")";
  return s.str();
}

inline void check_shape(const Tensor& t, const char* name, const std::vector<int64_t>& shape) {
  bool same = t.dim() == int64_t(shape.size());
  for (size_t d = 0; same && d < shape.size(); ++d) same = t.size(int64_t(d)) == shape[d];
  if (same) return;
  std::ostringstream s;
  for (size_t d = 0; d < shape.size(); ++d) s << (d ? ", " : "") << shape[d];
  STD_TORCH_CHECK(false, name, ": expected shape (", s.str(), "), got ", shape_text(t));
}

inline void check_device(const Tensor& t, const char* name, const Tensor& like, const char* of = "gates") {
  STD_TORCH_CHECK(t.device() == like.device(), name, ": is on another device than ", of);
}
inline void check_like(const Tensor& t, const char* name, const Tensor& like, const char* of = "gates") {
  STD_TORCH_CHECK(t.scalar_type() == like.scalar_type(), name, ": its dtype differs from that of ", of);
  check_device(t, name, like, of);
}

inline void check_int64_vector(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.dim() == 1, name, ": expected one dimension, got shape ", shape_text(t));
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Long, name, ": expected dtype int64");
}

// Sizes of a layer, and the offsets of its steps: owns what LstmShape points to.
struct CheckedShape {
  LstmShape shape;
  Tensor batch_sizes;
  std::vector<int64_t> offsets;
};

// w_hh (D, 4H, H), or (D, 4H, P) beside w_hr (D, P, H): D and H.
inline std::pair<int64_t, int64_t> check_recurrent(const Tensor& w_hh,
                                                   const std::optional<Tensor>& w_hr = std::nullopt) {
  STD_TORCH_CHECK(w_hh.dim() == 3, "w_hh: expected shape (D, 4H, H), got ", shape_text(w_hh));
  const int64_t directions = w_hh.size(0), width = w_hh.size(2);
  STD_TORCH_CHECK(directions == 1 || directions == 2, "w_hh: expected 1 or 2 directions, got ", directions);
  STD_TORCH_CHECK(width > 0, "w_hh: expected ", w_hr ? "P" : "H", " > 0, got 0");
  if (w_hr) {
    const int64_t hidden = w_hr->dim() == 3 ? w_hr->size(2) : 0;
    check_shape(*w_hr, "w_hr", {directions, width, hidden});
    STD_TORCH_CHECK(hidden > 0, "w_hr: expected H > 0, got 0");
    check_like(*w_hr, "w_hr", w_hh, "w_hh");
    check_shape(w_hh, "w_hh", {directions, 4 * hidden, width});
    return {directions, hidden};
  }
  check_shape(w_hh, "w_hh", {directions, 4 * width, width});
  return {directions, width};
}

// batch_sizes (T), for `rows` rows: all of the shape but directions, hidden and gate_rows.
inline CheckedShape check_steps(const Tensor& batch_sizes, std::optional<int64_t> rows) {
  check_int64_vector(batch_sizes, "batch_sizes");
  STD_TORCH_CHECK(batch_sizes.is_cpu(), "batch_sizes: expected a tensor on the CPU");
  CheckedShape checked{{}, dense(batch_sizes), {0}};
  const auto* sizes = static_cast<const int64_t*>(checked.batch_sizes.const_data_ptr());
  const int64_t steps = batch_sizes.size(0);
  STD_TORCH_CHECK(steps > 0, "batch_sizes: expected at least one step, got none");
  STD_TORCH_CHECK(!rows || sizes[0] == *rows, "batch_sizes: batch_sizes[0] = ", sizes[0], ", expected the rows of h0, ",
                  *rows);
  checked.offsets.reserve(size_t(steps) + 1);
  for (int64_t t = 0; t < steps; ++t) {
    STD_TORCH_CHECK(sizes[t] >= (rows == 0 ? 0 : 1), "batch_sizes: batch_sizes[", t, "] = ", sizes[t],
                    ", expected at least 1");
    STD_TORCH_CHECK(t == 0 || sizes[t] <= sizes[t - 1], "batch_sizes: batch_sizes[", t, "] = ", sizes[t], " after ",
                    sizes[t - 1], ", expected a non-increasing sequence");
    checked.offsets.push_back(checked.offsets.back() + sizes[t]);
  }
  checked.shape = {steps, sizes[0], checked.offsets.back(), 0, 0, 0, sizes, checked.offsets.data()};
  return checked;
}

// index (N), or none where `table`, gates or input, has N rows.
inline void check_index(const std::optional<Tensor>& index, const Tensor& table, const char* name, int64_t rows,
                        int64_t positions) {
  if (index) {
    check_int64_vector(*index, "index");
    check_device(*index, "index", table, name);
    STD_TORCH_CHECK(index->size(0) == positions, "index: expected one entry for each of the ", positions,
                    " positions of batch_sizes, got ", index->size(0));
  } else {
    STD_TORCH_CHECK(rows == positions, name, ": expected one row for each of the ", positions,
                    " positions of batch_sizes, got ", rows);
  }
}

// gates is (D, R, 4H) or, in the backward, the activations (D, N, 4H).
inline CheckedShape check_layer(const Tensor& gates, const std::optional<Tensor>& index, int64_t gate_rows,
                                const Tensor& batch_sizes, const Tensor& w_hh, const Tensor& h0, const Tensor& c0,
                                const std::optional<Tensor>& w_hr = std::nullopt) {
  const auto [directions, hidden] = check_recurrent(w_hh, w_hr);
  check_shape(gates, "gates", {directions, gates.dim() == 3 ? gates.size(1) : 0, 4 * hidden});
  STD_TORCH_CHECK(h0.dim() == 3, "h0: expected shape (D, B, ", w_hr ? "P" : "H", "), got ", shape_text(h0));
  const int64_t rows = h0.size(1);
  check_shape(h0, "h0", {directions, rows, w_hh.size(2)});
  check_shape(c0, "c0", {directions, rows, hidden});
  // 16-bit layers have gates in float: a table is made once, and its rows are not rounded a second time.
  const bool narrow = w_hh.scalar_type() == ScalarType::BFloat16 || w_hh.scalar_type() == ScalarType::Half;
  if (narrow && gates.scalar_type() == ScalarType::Float) {
    check_device(w_hh, "w_hh", gates);
    check_like(h0, "h0", w_hh, "w_hh");
    check_like(c0, "c0", w_hh, "w_hh");
  } else {
    check_like(w_hh, "w_hh", gates);
    check_like(h0, "h0", gates);
    check_like(c0, "c0", gates);
  }

  CheckedShape checked = check_steps(batch_sizes, rows);
  check_index(index, gates, "gates", gate_rows, checked.shape.positions);
  checked.shape.directions = directions;
  checked.shape.hidden = hidden;
  checked.shape.gate_rows = gate_rows;
  checked.shape.projected = w_hr ? w_hh.size(2) : 0;
  return checked;
}

// Reads every entry: for tensors on the CPU.
inline void check_index_range(const std::optional<Tensor>& index, int64_t gate_rows) {
  if (!index) return;
  const Tensor index_c = dense(*index);
  const auto* rows = static_cast<const int64_t*>(index_c.const_data_ptr());
  const int64_t count = index_c.size(0);
  bool good = true;
  for (int64_t n = 0; n < count; ++n) good &= uint64_t(rows[n]) < uint64_t(gate_rows);
  if (good) return;
  for (int64_t n = 0; n < count; ++n)
    STD_TORCH_CHECK(uint64_t(rows[n]) < uint64_t(gate_rows), "index: index[", n, "] = ", rows[n],
                    ", expected 0 <= index < ", gate_rows);
}

}  // namespace textclf_fast

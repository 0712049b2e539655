// The int8 ops on CPU tensors: quantisation, checks, allocation.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "../tensor_checks.h"
#include "int8_kernels.h"
#include "launch.h"
#include "padded_ids.h"
#include "tensors.h"

namespace textclf_fast::cpu {
namespace {

constexpr int64_t kGates = 4;
constexpr double kLargest = 127;  // of a quantised number

// A row of W_hh: its numbers, `spacing` fours apart in `to`, its scale, and its sum.
struct QuantisedRow {
  float scale = 0;
  int32_t sum = 0;
};
QuantisedRow quantise_row(const float* from, int64_t hidden, int8_t* to, int64_t spacing) {
  float largest = 0;
  bool finite = true;
  for (int64_t k = 0; k < hidden; ++k) {
    largest = std::fmax(largest, std::fabs(from[k]));
    finite &= std::isfinite(from[k]);
  }
  QuantisedRow row;
  // Numbers that are none spoil their row's gates, as they do in float32.
  if (!finite) row.scale = std::numeric_limits<float>::quiet_NaN();
  if (!finite || largest == 0) return row;
  // h is quantised by 127, too.
  row.scale = float(double(largest) / (kLargest * kLargest));
  for (int64_t k = 0; k < hidden; ++k) {
    const auto q = int8_t(std::nearbyint(double(from[k]) * (kLargest / double(largest))));
    to[k / Int8Weights::kFour * spacing + k % Int8Weights::kFour] = q;
    row.sum += q;
  }
  return row;
}

std::tuple<Tensor, Tensor, Tensor> quantize_recurrent(const Tensor& w_hh) {
  const auto [directions, hidden] = check_recurrent(w_hh);
  STD_TORCH_CHECK(w_hh.scalar_type() == ScalarType::Float, "w_hh: expected dtype float32");
  STD_TORCH_CHECK(hidden <= Int8Weights::kMostHidden, "w_hh: H is ", hidden, ", expected at most ",
                  Int8Weights::kMostHidden, " for int8");
  const Tensor w_hh_c = dense(w_hh);
  const int64_t blocks = Int8Weights::blocks(hidden), fours = Int8Weights::depth(hidden) / Int8Weights::kFour;
  const int64_t row_count = directions * blocks * kGates * Int8Weights::kUnits;
  const auto zeros = [&](const std::vector<int64_t>& shape, ScalarType dtype) {
    return torch::stable::new_zeros(w_hh, shape, dtype);
  };
  Tensor numbers =
      zeros({directions, blocks, fours, kGates, Int8Weights::kUnits, Int8Weights::kFour}, ScalarType::Char);
  Tensor scales = zeros({directions, blocks, kGates, Int8Weights::kUnits}, ScalarType::Float);
  Tensor offsets = zeros({directions, blocks, kGates, Int8Weights::kUnits}, ScalarType::Int);
  const float* from = data<float>(w_hh_c);
  auto* q = mutable_data<int8_t>(numbers);
  auto* scale = mutable_data<float>(scales);
  auto* offset = mutable_data<int32_t>(offsets);
  for (int64_t i = 0; i < row_count; ++i) {
    const int64_t lane = i % Int8Weights::kUnits, gate = i / Int8Weights::kUnits % kGates;
    const int64_t place = i / (Int8Weights::kUnits * kGates);  // direction and block
    const int64_t direction = place / blocks, unit = place % blocks * Int8Weights::kUnits + lane;
    if (unit >= hidden) continue;
    int8_t* to = q + place * Int8Weights::block_size(hidden) + (gate * Int8Weights::kUnits + lane) * Int8Weights::kFour;
    const QuantisedRow row = quantise_row(from + ((direction * kGates + gate) * hidden + unit) * hidden, hidden, to,
                                          kGates * Int8Weights::kUnits * Int8Weights::kFour);
    scale[i] = row.scale;
    offset[i] = 128 * row.sum;
  }
  return {numbers, scales, offsets};
}

// Three tensors of quantize_recurrent, checked against gates or table (D, any, 4H): owns what `weights` points to.
struct CheckedWeights {
  Tensor numbers, scales, offsets;
  Int8Weights weights;
};
CheckedWeights check_int8(const Tensor& numbers, const Tensor& scales, const Tensor& offsets, const Tensor& gates,
                          const char* gates_name) {
  STD_TORCH_CHECK(gates.dim() == 3 && gates.size(2) > 0 && gates.size(2) % kGates == 0, gates_name,
                  ": expected shape (D, rows, 4H), got ", shape_text(gates));
  STD_TORCH_CHECK(gates.scalar_type() == ScalarType::Float, gates_name, ": expected dtype float32");
  const int64_t directions = gates.size(0), hidden = gates.size(2) / kGates, blocks = Int8Weights::blocks(hidden);
  STD_TORCH_CHECK(directions == 1 || directions == 2, gates_name, ": expected 1 or 2 directions, got ", directions);
  check_shape(numbers, "numbers",
              {directions, blocks, Int8Weights::depth(hidden) / Int8Weights::kFour, kGates, Int8Weights::kUnits,
               Int8Weights::kFour});
  check_shape(scales, "scales", {directions, blocks, kGates, Int8Weights::kUnits});
  check_shape(offsets, "offsets", {directions, blocks, kGates, Int8Weights::kUnits});
  STD_TORCH_CHECK(numbers.scalar_type() == ScalarType::Char, "numbers: expected dtype int8");
  STD_TORCH_CHECK(scales.scalar_type() == ScalarType::Float, "scales: expected dtype float32");
  STD_TORCH_CHECK(offsets.scalar_type() == ScalarType::Int, "offsets: expected dtype int32");
  STD_TORCH_CHECK(numbers.is_cpu(), "numbers: expected a tensor on the CPU");
  STD_TORCH_CHECK(scales.is_cpu(), "scales: expected a tensor on the CPU");
  STD_TORCH_CHECK(offsets.is_cpu(), "offsets: expected a tensor on the CPU");
  CheckedWeights checked{dense(numbers), dense(scales), dense(offsets), {}};
  checked.weights = {data<int8_t>(checked.numbers), data<float>(checked.scales), data<int32_t>(checked.offsets)};
  return checked;
}

std::tuple<Tensor, Tensor, Tensor> lstm_int8_inference(const Tensor& gates, const std::optional<Tensor>& index,
                                                       const Tensor& batch_sizes, const Tensor& numbers,
                                                       const Tensor& scales, const Tensor& offsets, bool need_output) {
  const CheckedWeights weights = check_int8(numbers, scales, offsets, gates, "gates");
  const int64_t directions = gates.size(0), hidden = gates.size(2) / kGates, gate_rows = gates.size(1);
  CheckedShape checked = check_steps(batch_sizes, std::nullopt);
  LstmShape& s = checked.shape;
  check_index(index, gates, "gates", gate_rows, s.positions);
  check_index_range(index, gate_rows);
  s.directions = directions, s.hidden = hidden, s.gate_rows = gate_rows;
  const Tensor gates_c = dense(gates);
  const auto index_c = dense(index);
  Tensor output = new_output(gates, {need_output ? s.positions : 0, directions * hidden});
  Tensor h_n = uninitialized(gates, {directions, s.rows, hidden});
  Tensor c_n = uninitialized(gates, {directions, s.rows, hidden});
  run_int8_forward({s, data<float>(gates_c), data<int64_t>(index_c), nullptr, nullptr, nullptr,
                    need_output ? mutable_data<float>(output) : nullptr, nullptr, mutable_data<float>(h_n),
                    mutable_data<float>(c_n), nullptr, nullptr},
                   weights.weights);
  return {output, h_n, c_n};
}

Inferred embedding_lstm_int8_inference(const Tensor& table, const Tensor& ids, const std::optional<Tensor>& lengths,
                                       bool batch_first, const Tensor& numbers, const Tensor& scales,
                                       const Tensor& offsets, bool need_output) {
  const CheckedWeights weights = check_int8(numbers, scales, offsets, table, "table");
  const PaddedIds batch = lay_out_ids(ids, lengths, batch_first, table.size(1));
  const Tensor table_c = dense(table);
  return infer_padded<float>(batch, table_c, table_c, need_output,
                             [&](const LstmForward<float>& problem) { run_int8_forward(problem, weights.weights); });
}

}  // namespace
}  // namespace textclf_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CPU, m) {
  m.impl("quantize_recurrent", TORCH_BOX(&textclf_fast::cpu::quantize_recurrent));
  m.impl("lstm_int8_inference", TORCH_BOX(&textclf_fast::cpu::lstm_int8_inference));
  m.impl("embedding_lstm_int8_inference", TORCH_BOX(&textclf_fast::cpu::embedding_lstm_int8_inference));
}

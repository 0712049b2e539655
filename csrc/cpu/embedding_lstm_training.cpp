// A training step of an embedding and a layer: from token ids to the state, and from there to every weight's gradient,
// in one call each.  What is spared are calls and nodes of autograd: textclf_fast/nn/trained.py has how much.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <tuple>

#include "../tensor_checks.h"
#include "batch_layout.h"
#include "layer.h"
#include "rows.h"

namespace textclf_fast::cpu {
namespace {

// Sizes of table (V, I), w_ih (4H, I), w_hh (4H, H) and of the batch.
CheckedShape check_weights(int64_t input, const Tensor& batch_sizes, const Tensor& w_ih, const Tensor& w_hh) {
  STD_TORCH_CHECK(w_hh.dim() == 2, "w_hh: expected shape (4H, H), got ", shape_text(w_hh));
  const int64_t hidden = w_hh.size(1);
  STD_TORCH_CHECK(hidden > 0, "w_hh: expected H > 0, got 0");
  check_shape(w_hh, "w_hh", {4 * hidden, hidden});
  check_shape(w_ih, "w_ih", {4 * hidden, input});
  check_like(w_ih, "w_ih", w_hh, "w_hh");
  const auto dtype = w_hh.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, "w_hh: expected dtype float32 or float64");
  CheckedShape checked = check_steps(batch_sizes, std::nullopt);
  checked.shape.directions = 1;
  checked.shape.hidden = hidden;
  checked.shape.input = input;
  return checked;
}

Tensor zero_state(const LstmShape& s, const Tensor& like) {
  Tensor state = uninitialized(like, {1, s.rows, s.hidden});
  std::memset(mutable_data<char>(state), 0, size_t(state.numel()) * like.element_size());
  return state;
}

// The sum of both, where there are two.
Maybe summed_bias(const Maybe& b_ih, const Maybe& b_hh, const LstmShape& s, const Tensor& w_hh) {
  STD_TORCH_CHECK(b_ih.has_value() == b_hh.has_value(), "b_hh: expected both biases or none");
  if (!b_ih) return std::nullopt;
  check_shape(*b_ih, "b_ih", {4 * s.hidden});
  check_shape(*b_hh, "b_hh", {4 * s.hidden});
  check_like(*b_ih, "b_ih", w_hh, "w_hh");
  check_like(*b_hh, "b_hh", w_hh, "w_hh");
  Tensor sum = uninitialized(w_hh, {4 * s.hidden});
  dispatch(w_hh, "w_hh", [&]<class T>(T) {
    if constexpr (std::is_floating_point_v<T>) {
      const Tensor a = dense(*b_ih), b = dense(*b_hh);
      std::transform(data<T>(a), data<T>(a) + sum.numel(), data<T>(b), mutable_data<T>(sum), std::plus<T>());
    }
  });
  return sum;
}

using Trained = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Trained embedding_lstm_training(const Tensor& table, const Tensor& ids, const Tensor& batch_sizes, const Tensor& w_ih,
                                const Tensor& w_hh, const Maybe& b_ih, const Maybe& b_hh) {
  STD_TORCH_CHECK(table.dim() == 2 && table.size(1) > 0, "table: expected shape (V, I) with I > 0, got ",
                  shape_text(table));
  check_like(table, "table", w_hh, "w_hh");
  CheckedShape checked = check_weights(table.size(1), batch_sizes, w_ih, w_hh);
  LstmShape& s = checked.shape;
  const Maybe bias = summed_bias(b_ih, b_hh, s, w_hh);
  check_int64_vector(ids, "ids");
  STD_TORCH_CHECK(ids.is_cpu(), "ids: expected a tensor on the CPU");
  STD_TORCH_CHECK(ids.size(0) == s.positions, "ids: expected one for each of the ", s.positions,
                  " positions of batch_sizes, got ", ids.size(0));
  const auto [tokens, index] = distinct_tokens(ids, table.size(0));
  const Tensor x = gather_rows(table, tokens, -1), zeros = zero_state(s, w_hh);
  s.gate_rows = x.size(0);
  const LayerResults r =
      run_layer({s, x, dense(w_ih), dense(w_hh), bias, zeros, zeros, index, true}, std::nullopt, true, true);
  return {r.output, r.h_n, r.c_n, *r.activations, *r.cells, x, tokens, index};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> embedding_lstm_backward(
    const Maybe& grad_output, const Maybe& grad_h_n, const Maybe& grad_c_n, const Tensor& activations,
    const Tensor& cells, const Tensor& output, const Tensor& x, const Tensor& tokens, const Tensor& index,
    const Tensor& batch_sizes, const Tensor& w_ih, const Tensor& w_hh, int64_t vocab_size, int64_t padding_idx,
    bool need_table, bool need_w_ih, bool need_w_hh, bool need_bias) {
  STD_TORCH_CHECK(x.dim() == 2 && x.size(1) > 0, "x: expected shape (U, I) with I > 0, got ", shape_text(x));
  check_like(x, "x", w_hh, "w_hh");
  STD_TORCH_CHECK(vocab_size >= 0, "vocab_size: expected at least 0, got ", vocab_size);
  CheckedShape checked = check_weights(x.size(1), batch_sizes, w_ih, w_hh);
  LstmShape& s = checked.shape;
  s.gate_rows = x.size(0);
  check_index(index, x, "x", s.gate_rows, s.positions);
  check_index_range(index, s.gate_rows);
  check_rows(tokens, "tokens", s.gate_rows, vocab_size);
  const auto [grads, saved] =
      check_for_backward(s, w_hh, "w_hh", {grad_output, grad_h_n, grad_c_n}, {activations, cells, output});
  const Tensor zeros = zero_state(s, w_hh);
  const LayerGradients g =
      run_layer_backward({s, dense(x), dense(w_ih), dense(w_hh), std::nullopt, zeros, zeros, dense(index), true}, grads,
                         saved, {need_table, need_w_ih, need_w_hh, need_bias, false});
  const Tensor grad_table = need_table ? scatter_rows(g.x, tokens, vocab_size, padding_idx) : uninitialized(x, {0});
  return {grad_table, g.w_ih, g.w_hh, g.bias};
}

}  // namespace
}  // namespace textclf_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CPU, m) {
  m.impl("embedding_lstm_training", TORCH_BOX(&textclf_fast::cpu::embedding_lstm_training));
  m.impl("embedding_lstm_backward", TORCH_BOX(&textclf_fast::cpu::embedding_lstm_backward));
}

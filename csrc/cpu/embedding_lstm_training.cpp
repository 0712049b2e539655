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
#include "padded_ids.h"
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

void check_table(const Tensor& table, const Tensor& w_hh) {
  STD_TORCH_CHECK(table.dim() == 2 && table.size(1) > 0, "table: expected shape (V, I) with I > 0, got ",
                  shape_text(table));
  check_like(table, "table", w_hh, "w_hh");
}

struct TrainedLayer {
  LayerResults results;
  Tensor x, tokens, index;
};

// ids (N) in packed order; the last two as in Layer.
TrainedLayer train(LstmShape s, const Tensor& table, const int64_t* ids, const Tensor& w_ih, const Tensor& w_hh,
                   const Maybe& b_ih, const Maybe& b_hh, const std::vector<int64_t>& output_shape = {},
                   const int64_t* place = nullptr) {
  const Maybe bias = summed_bias(b_ih, b_hh, s, w_hh);
  const auto [tokens, index] = distinct_tokens(ids, s.positions, table.size(0));
  const Tensor x = gather_rows(table, tokens, -1), zeros = zero_state(s, w_hh);
  s.gate_rows = x.size(0);
  const Layer layer{s, x, dense(w_ih), dense(w_hh), bias, zeros, zeros, index, true, output_shape, place};
  return {run_layer(layer, std::nullopt, true, true), x, tokens, index};
}

using Trained = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Trained embedding_lstm_training(const Tensor& table, const Tensor& ids, const Tensor& batch_sizes, const Tensor& w_ih,
                                const Tensor& w_hh, const Maybe& b_ih, const Maybe& b_hh) {
  check_table(table, w_hh);
  const CheckedShape checked = check_weights(table.size(1), batch_sizes, w_ih, w_hh);
  check_int64_vector(ids, "ids");
  STD_TORCH_CHECK(ids.is_cpu(), "ids: expected a tensor on the CPU");
  STD_TORCH_CHECK(ids.size(0) == checked.shape.positions, "ids: expected one for each of the ", checked.shape.positions,
                  " positions of batch_sizes, got ", ids.size(0));
  const Tensor ids_c = dense(ids);
  const auto [r, x, tokens, index] = train(checked.shape, table, data<int64_t>(ids_c), w_ih, w_hh, b_ih, b_hh);
  return {r.output, r.h_n, r.c_n, *r.activations, *r.cells, x, tokens, index};
}

Tensor int64_vector(const std::vector<int64_t>& numbers) {
  Tensor t = uninitialized({int64_t(numbers.size())}, ScalarType::Long);
  std::copy(numbers.begin(), numbers.end(), mutable_data<int64_t>(t));
  return t;
}

using TrainedPadded =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

TrainedPadded embedding_lstm_padded_training(const Tensor& table, const Tensor& ids, const Maybe& lengths,
                                             bool batch_first, bool need_output, const Tensor& w_ih, const Tensor& w_hh,
                                             const Maybe& b_ih, const Maybe& b_hh) {
  check_table(table, w_hh);
  const PaddedIds batch = lay_out_ids(ids, lengths, batch_first, table.size(0));
  const Tensor batch_sizes = int64_vector(batch.batch_sizes);
  const CheckedShape checked = check_weights(table.size(1), batch_sizes, w_ih, w_hh);
  const int64_t hidden = checked.shape.hidden;
  const bool placed = need_output && !batch.positions.empty();
  const std::vector<int64_t> padded{ids.size(0), ids.size(1), hidden};
  auto [r, x, tokens, index] =
      train(checked.shape, table, batch.index(), w_ih, w_hh, b_ih, b_hh, need_output ? padded : std::vector<int64_t>(),
            placed ? batch.positions.data() : nullptr);
  dispatch(w_hh, "w_hh", [&]<class T>(T) {
    if (placed) clear_padding(mutable_data<T>(r.output), batch, hidden);
    unsort_rows<T>(r.h_n, batch);
    unsort_rows<T>(r.c_n, batch);
  });
  return {r.output,
          r.h_n,
          r.c_n,
          *r.activations,
          *r.cells,
          x,
          tokens,
          index,
          batch_sizes,
          int64_vector(placed ? batch.positions : std::vector<int64_t>()),
          int64_vector(batch.order),
          placed ? *r.packed_output : uninitialized(w_hh, {0, hidden})};
}

// Rows of (1, B, H) in the order of `row`; or none.
Maybe sorted_rows(const Maybe& state, const int64_t* row) {
  if (!state) return std::nullopt;
  Tensor sorted = uninitialized(*state, {1, state->size(1), state->size(2)});
  const size_t bytes = size_t(state->size(2)) * state->element_size();
  for (int64_t i = 0; i < state->size(1); ++i)
    std::memcpy(mutable_data<char>(sorted) + size_t(i) * bytes, data<char>(state) + size_t(row[i]) * bytes, bytes);
  return sorted;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> embedding_lstm_backward(
    const Maybe& grad_output, const Maybe& grad_h_n, const Maybe& grad_c_n, const Tensor& activations,
    const Tensor& cells, const Tensor& output, const Tensor& x, const Tensor& tokens, const Tensor& index,
    const Tensor& batch_sizes, const Maybe& positions, const Maybe& order, const Tensor& w_ih, const Tensor& w_hh,
    int64_t vocab_size, int64_t padding_idx, bool need_table, bool need_w_ih, bool need_w_hh, bool need_bias) {
  STD_TORCH_CHECK(x.dim() == 2 && x.size(1) > 0, "x: expected shape (U, I) with I > 0, got ", shape_text(x));
  check_like(x, "x", w_hh, "w_hh");
  STD_TORCH_CHECK(vocab_size >= 0, "vocab_size: expected at least 0, got ", vocab_size);
  CheckedShape checked = check_weights(x.size(1), batch_sizes, w_ih, w_hh);
  LstmShape& s = checked.shape;
  s.gate_rows = x.size(0);
  check_index(index, x, "x", s.gate_rows, s.positions);
  check_index_range(index, s.gate_rows);
  check_rows(tokens, "tokens", s.gate_rows, vocab_size);
  const int64_t* place = nullptr;
  std::vector<int64_t> output_shape, grad_shape;
  if (output.dim() == 3) {
    output_shape = {output.size(0), output.size(1), s.hidden};
    STD_TORCH_CHECK(output_shape[0] * output_shape[1] == s.positions, "output: expected the ", s.positions,
                    " positions of batch_sizes, got shape ", shape_text(output));
  }
  if (grad_output && positions && positions->numel() > 0) {
    STD_TORCH_CHECK(grad_output->dim() == 3, "grad_output: expected three dimensions beside positions, got ",
                    shape_text(*grad_output));
    grad_shape = {grad_output->size(0), grad_output->size(1), s.hidden};
    place = check_rows(*positions, "positions", s.positions, grad_shape[0] * grad_shape[1]);
  }
  auto [grads, saved] = check_for_backward(s, w_hh, "w_hh", {grad_output, grad_h_n, grad_c_n},
                                           {activations, cells, output}, output_shape, grad_shape);
  if (order && order->numel() > 0) {
    const int64_t* row = check_rows(*order, "order", s.rows, s.rows);
    grads.h_n = sorted_rows(grads.h_n, row), grads.c_n = sorted_rows(grads.c_n, row);
  }
  const Tensor zeros = zero_state(s, w_hh);
  const Layer layer{s,     dense(x),     dense(w_ih), dense(w_hh),  std::nullopt, zeros,
                    zeros, dense(index), true,        output_shape, place};
  const LayerGradients g =
      run_layer_backward(layer, grads, saved, {need_table, need_w_ih, need_w_hh, need_bias, false});
  const Tensor grad_table = need_table ? scatter_rows(g.x, tokens, vocab_size, padding_idx) : uninitialized(x, {0});
  return {grad_table, g.w_ih, g.w_hh, g.bias};
}

}  // namespace
}  // namespace textclf_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CPU, m) {
  m.impl("embedding_lstm_training", TORCH_BOX(&textclf_fast::cpu::embedding_lstm_training));
  m.impl("embedding_lstm_padded_training", TORCH_BOX(&textclf_fast::cpu::embedding_lstm_padded_training));
  m.impl("embedding_lstm_backward", TORCH_BOX(&textclf_fast::cpu::embedding_lstm_backward));
}

// A layer whose input the kernels project themselves, on CPU tensors.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "../tensor_checks.h"
#include "launch.h"
#include "tensors.h"

namespace textclf_fast::cpu {
namespace {

using Maybe = std::optional<Tensor>;

// x (R, I), w_ih (D, 4H, I), h0 and c0 (D, B, H), all of one dtype; bias (D, 4H), which is float32 beside bfloat16.
CheckedShape check_with_input(const Tensor& x, const Maybe& index, const Tensor& batch_sizes, const Tensor& w_ih,
                              const Tensor& w_hh, const Maybe& bias, const Tensor& h0, const Tensor& c0) {
  const auto [directions, hidden] = check_recurrent(w_hh);
  STD_TORCH_CHECK(x.dim() == 2 && x.size(1) > 0, "x: expected shape (R, I) with I > 0, got ", shape_text(x));
  STD_TORCH_CHECK(h0.dim() == 3, "h0: expected shape (D, B, H), got ", shape_text(h0));
  const int64_t rows = h0.size(1);
  check_shape(w_ih, "w_ih", {directions, 4 * hidden, x.size(1)});
  check_shape(h0, "h0", {directions, rows, hidden});
  check_shape(c0, "c0", {directions, rows, hidden});
  if (bias) {
    check_shape(*bias, "bias", {directions, 4 * hidden});
    if (x.scalar_type() == ScalarType::BFloat16)
      check_gates_dtype(*bias, "bias", w_hh);
    else
      check_like(*bias, "bias", x, "x");
  }
  check_like(w_ih, "w_ih", x, "x");
  check_like(w_hh, "w_hh", x, "x");
  check_like(h0, "h0", x, "x");
  check_like(c0, "c0", x, "x");
  CheckedShape checked = check_steps(batch_sizes, rows);
  LstmShape& s = checked.shape;
  check_index(index, x, "x", x.size(0), s.positions);
  check_index_range(index, x.size(0));
  s.directions = directions;
  s.hidden = hidden;
  s.gate_rows = x.size(0);
  s.input = x.size(1);
  return checked;
}

struct Results {
  Tensor output, h_n, c_n;
  Maybe activations, cells;
};

Results forward(const Tensor& x, const Maybe& index, const Tensor& batch_sizes, const Tensor& w_ih, const Tensor& w_hh,
                const Maybe& bias, const Tensor& h0, const Tensor& c0, const Maybe& panels, bool need_output,
                bool trains) {
  const auto checked = check_with_input(x, index, batch_sizes, w_ih, w_hh, bias, h0, c0);
  const LstmShape& s = checked.shape;
  if (computes_as_float(w_hh, std::nullopt, w_ih)) {
    const Results r = forward(as(kFloat, x), index, batch_sizes, as(kFloat, w_ih), as(kFloat, w_hh), bias,
                              as(kFloat, h0), as(kFloat, c0), std::nullopt, need_output, trains);
    return {as(kBFloat16, r.output), as(kBFloat16, r.h_n), as(kBFloat16, r.c_n), as(kBFloat16, r.activations),
            as(kBFloat16, r.cells)};
  }
  const Tensor x_c = dense(x), w_ih_c = dense(w_ih), w_hh_c = dense(w_hh), h0_c = dense(h0), c0_c = dense(c0);
  const Maybe bias_c = dense(bias), index_c = dense(index);
  const bool narrow = x.scalar_type() == kBFloat16;  // its gates are float32: no step multiplies x then
  Maybe gates;
  if (index || narrow || projects_first(s, x.element_size()))
    gates = new_passing(x, {s.directions, s.gate_rows, 4 * s.hidden}, narrow ? kFloat : x.scalar_type());
  Results r{new_output(x, {need_output ? s.positions : 0, s.directions * s.hidden}),
            uninitialized(x, {s.directions, s.rows, s.hidden}), uninitialized(x, {s.directions, s.rows, s.hidden}),
            std::nullopt, std::nullopt};
  if (trains) {
    r.activations = new_passing(x, {s.directions, s.positions, 4 * s.hidden});
    r.cells = new_passing(x, {s.directions, s.positions, s.hidden});
  }
  dispatch(x, "x", [&]<class T>(T) {
    using A = Accumulator<T>;
    if (panels) check_panels<T>(*panels, x, s.directions, {s.hidden, 0, s.input});
    LstmForward<T> p{};
    p.shape = s;
    p.w_hh = data<T>(w_hh_c), p.h0 = data<T>(h0_c), p.c0 = data<T>(c0_c);
    p.output = need_output ? mutable_data<T>(r.output) : nullptr;
    p.h_n = mutable_data<T>(r.h_n), p.c_n = mutable_data<T>(r.c_n);
    if (trains) p.activations = mutable_data<T>(*r.activations), p.cells = mutable_data<T>(*r.cells);
    p.x = data<T>(x_c), p.w_ih = data<T>(w_ih_c), p.bias = data<A>(bias_c);
    p.index = data<int64_t>(index_c);
    if (gates) p.gates = p.projected_x = mutable_data<A>(*gates);
    run_forward<T>(p, data<T>(panels));
  });
  return r;
}

std::tuple<Tensor, Tensor, Tensor> lstm_layer_inference(const Tensor& x, const Maybe& index, const Tensor& batch_sizes,
                                                        const Tensor& w_ih, const Tensor& w_hh, const Maybe& bias,
                                                        const Tensor& h0, const Tensor& c0, const Maybe& panels,
                                                        bool need_output) {
  const Results r = forward(x, index, batch_sizes, w_ih, w_hh, bias, h0, c0, panels, need_output, false);
  return {r.output, r.h_n, r.c_n};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_layer_training(const Tensor& x, const Maybe& index,
                                                                       const Tensor& batch_sizes, const Tensor& w_ih,
                                                                       const Tensor& w_hh, const Maybe& bias,
                                                                       const Tensor& h0, const Tensor& c0) {
  const Results r = forward(x, index, batch_sizes, w_ih, w_hh, bias, h0, c0, std::nullopt, true, true);
  return {r.output, r.h_n, r.c_n, *r.activations, *r.cells};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> lstm_layer_backward(
    const Maybe& grad_output, const Maybe& grad_h_n, const Maybe& grad_c_n, const Tensor& activations,
    const Tensor& cells, const Tensor& output, const Tensor& x, const Maybe& index, const Tensor& batch_sizes,
    const Tensor& w_ih, const Tensor& w_hh, const Tensor& h0, const Tensor& c0, bool need_x, bool need_w_ih,
    bool need_w_hh, bool need_bias) {
  const auto checked = check_with_input(x, index, batch_sizes, w_ih, w_hh, std::nullopt, h0, c0);
  const LstmShape& s = checked.shape;
  const int64_t D = s.directions, H = s.hidden, N = s.positions, B = s.rows, R = s.gate_rows;
  const auto checked_like = [&](const Maybe& t, const char* name, const std::vector<int64_t>& shape) {
    if (t) check_shape(*t, name, shape), check_like(*t, name, x, "x");
    return dense(t);
  };
  const Maybe activations_c = checked_like(activations, "activations", {D, N, 4 * H});
  const Maybe cells_c = checked_like(cells, "cells", {D, N, H});
  const Maybe output_c = checked_like(output, "output", {N, D * H});
  const Maybe grad_output_c = checked_like(grad_output, "grad_output", {N, D * H});
  const Maybe grad_h_n_c = checked_like(grad_h_n, "grad_h_n", {D, B, H});
  const Maybe grad_c_n_c = checked_like(grad_c_n, "grad_c_n", {D, B, H});
  if (computes_as_float(w_hh, std::nullopt, w_ih)) {
    const auto [x_, w_ih_, w_hh_, bias_, h0_, c0_] = lstm_layer_backward(
        as(kFloat, grad_output), as(kFloat, grad_h_n), as(kFloat, grad_c_n), as(kFloat, activations), as(kFloat, cells),
        as(kFloat, output), as(kFloat, x), index, batch_sizes, as(kFloat, w_ih), as(kFloat, w_hh), as(kFloat, h0),
        as(kFloat, c0), need_x, need_w_ih, need_w_hh, need_bias);
    return {as(kBFloat16, x_),  as(kBFloat16, w_ih_), as(kBFloat16, w_hh_), bias_,
            as(kBFloat16, h0_), as(kBFloat16, c0_)};
  }
  const Tensor x_c = dense(x), w_ih_c = dense(w_ih), w_hh_c = dense(w_hh), h0_c = dense(h0), c0_c = dense(c0);
  const ScalarType given = x.scalar_type(), summed = given == kBFloat16 ? kFloat : given;
  const auto wanted = [&](bool need, const std::vector<int64_t>& shape, ScalarType dtype) {
    Tensor t = need ? new_passing(x, shape, dtype) : uninitialized({0}, dtype);
    if (B == 0) torch::stable::zero_(t);  // no step sets it
    return t;
  };
  Tensor grad_x = wanted(need_x, {D, R, s.input}, given), grad_w_ih = wanted(need_w_ih, {D, 4 * H, s.input}, summed);
  Tensor grad_w_hh = wanted(need_w_hh, {D, 4 * H, H}, summed), grad_bias = wanted(need_bias, {D, 4 * H}, summed);
  Tensor grad_h0 = uninitialized(x, {D, B, H}), grad_c0 = uninitialized(x, {D, B, H});
  const Maybe index_c = dense(index);
  Maybe grad_gates;
  if (index && (need_x || need_w_ih || need_bias)) {
    grad_gates = new_passing(x, {D, R, 4 * H}, summed);
    torch::stable::zero_(*grad_gates);  // sums over positions are added to it
  }
  dispatch(x, "x", [&]<class T>(T) {
    using A = Accumulator<T>;
    LstmBackward<T> p{};
    p.shape = s;
    p.grad_output = data<T>(grad_output_c), p.grad_h_n = data<T>(grad_h_n_c), p.grad_c_n = data<T>(grad_c_n_c);
    p.activations = data<T>(activations_c), p.cells = data<T>(cells_c), p.output = data<T>(output_c);
    p.w_hh = data<T>(w_hh_c), p.h0 = data<T>(h0_c), p.c0 = data<T>(c0_c);
    p.grad_h0 = mutable_data<T>(grad_h0), p.grad_c0 = mutable_data<T>(grad_c0);
    p.x = data<T>(x_c), p.w_ih = data<T>(w_ih_c), p.index = data<int64_t>(index_c);
    if (grad_gates) p.grad_gates = mutable_data<A>(*grad_gates);
    if (need_x) p.grad_x = mutable_data<T>(grad_x);
    if (need_w_ih) p.grad_w_ih = mutable_data<A>(grad_w_ih);
    if (need_w_hh) p.grad_w_hh = mutable_data<A>(grad_w_hh);
    if (need_bias) p.grad_bias = mutable_data<A>(grad_bias);
    run_backward<T>(p);
  });
  if (summed != given) grad_w_ih = as(given, grad_w_ih), grad_w_hh = as(given, grad_w_hh);
  return {grad_x, grad_w_ih, grad_w_hh, grad_bias, grad_h0, grad_c0};
}

}  // namespace
}  // namespace textclf_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CPU, m) {
  m.impl("lstm_layer_inference", TORCH_BOX(&textclf_fast::cpu::lstm_layer_inference));
  m.impl("lstm_layer_training", TORCH_BOX(&textclf_fast::cpu::lstm_layer_training));
  m.impl("lstm_layer_backward", TORCH_BOX(&textclf_fast::cpu::lstm_layer_backward));
}

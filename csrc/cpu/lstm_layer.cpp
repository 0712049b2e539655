// A layer whose input the kernels project themselves, on CPU tensors.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "../tensor_checks.h"
#include "layer.h"
#include "tensors.h"

namespace textclf_fast::cpu {
namespace {

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

LayerResults forward(const Tensor& x, const Maybe& index, const Tensor& batch_sizes, const Tensor& w_ih,
                     const Tensor& w_hh, const Maybe& bias, const Tensor& h0, const Tensor& c0, const Maybe& panels,
                     bool need_output, bool trains) {
  const auto checked = check_with_input(x, index, batch_sizes, w_ih, w_hh, bias, h0, c0);
  if (computes_as_float(w_hh, std::nullopt, w_ih)) {
    const LayerResults r = forward(as(kFloat, x), index, batch_sizes, as(kFloat, w_ih), as(kFloat, w_hh), bias,
                                   as(kFloat, h0), as(kFloat, c0), std::nullopt, need_output, trains);
    return {as(kBFloat16, r.output), as(kBFloat16, r.h_n), as(kBFloat16, r.c_n), as(kBFloat16, r.activations),
            as(kBFloat16, r.cells)};
  }
  const Layer layer{checked.shape, dense(x), dense(w_ih), dense(w_hh), dense(bias), dense(h0), dense(c0), dense(index)};
  return run_layer(layer, panels, need_output, trains);
}

std::tuple<Tensor, Tensor, Tensor> lstm_layer_inference(const Tensor& x, const Maybe& index, const Tensor& batch_sizes,
                                                        const Tensor& w_ih, const Tensor& w_hh, const Maybe& bias,
                                                        const Tensor& h0, const Tensor& c0, const Maybe& panels,
                                                        bool need_output) {
  const LayerResults r = forward(x, index, batch_sizes, w_ih, w_hh, bias, h0, c0, panels, need_output, false);
  return {r.output, r.h_n, r.c_n};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_layer_training(const Tensor& x, const Maybe& index,
                                                                       const Tensor& batch_sizes, const Tensor& w_ih,
                                                                       const Tensor& w_hh, const Maybe& bias,
                                                                       const Tensor& h0, const Tensor& c0) {
  const LayerResults r = forward(x, index, batch_sizes, w_ih, w_hh, bias, h0, c0, std::nullopt, true, true);
  return {r.output, r.h_n, r.c_n, *r.activations, *r.cells};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> lstm_layer_backward(
    const Maybe& grad_output, const Maybe& grad_h_n, const Maybe& grad_c_n, const Tensor& activations,
    const Tensor& cells, const Tensor& output, const Tensor& x, const Maybe& index, const Tensor& batch_sizes,
    const Tensor& w_ih, const Tensor& w_hh, const Tensor& h0, const Tensor& c0, bool need_x, bool need_w_ih,
    bool need_w_hh, bool need_bias) {
  const auto checked = check_with_input(x, index, batch_sizes, w_ih, w_hh, std::nullopt, h0, c0);
  const auto [grads, saved] =
      check_for_backward(checked.shape, x, "x", {grad_output, grad_h_n, grad_c_n}, {activations, cells, output});
  if (computes_as_float(w_hh, std::nullopt, w_ih)) {
    const auto [x_, w_ih_, w_hh_, bias_, h0_, c0_] = lstm_layer_backward(
        as(kFloat, grad_output), as(kFloat, grad_h_n), as(kFloat, grad_c_n), as(kFloat, activations), as(kFloat, cells),
        as(kFloat, output), as(kFloat, x), index, batch_sizes, as(kFloat, w_ih), as(kFloat, w_hh), as(kFloat, h0),
        as(kFloat, c0), need_x, need_w_ih, need_w_hh, need_bias);
    return {as(kBFloat16, x_),  as(kBFloat16, w_ih_), as(kBFloat16, w_hh_), bias_,
            as(kBFloat16, h0_), as(kBFloat16, c0_)};
  }
  const Layer layer{checked.shape, dense(x),  dense(w_ih), dense(w_hh),
                    std::nullopt,  dense(h0), dense(c0),   dense(index)};
  LayerGradients g = run_layer_backward(layer, grads, saved, {need_x, need_w_ih, need_w_hh, need_bias, true});
  if (x.scalar_type() == kBFloat16) g.w_ih = as(kBFloat16, g.w_ih), g.w_hh = as(kBFloat16, g.w_hh);
  return {g.x, g.w_ih, g.w_hh, g.bias, g.h0, g.c0};
}

}  // namespace
}  // namespace textclf_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CPU, m) {
  m.impl("lstm_layer_inference", TORCH_BOX(&textclf_fast::cpu::lstm_layer_inference));
  m.impl("lstm_layer_training", TORCH_BOX(&textclf_fast::cpu::lstm_layer_training));
  m.impl("lstm_layer_backward", TORCH_BOX(&textclf_fast::cpu::lstm_layer_backward));
}

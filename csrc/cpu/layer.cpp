#include "layer.h"

#include <torch/csrc/stable/ops.h>

#include "launch.h"

namespace textclf_fast::cpu {

LayerResults run_layer(const Layer& layer, const Maybe& panels, bool need_output, bool trains) {
  const LstmShape& s = layer.shape;
  const Tensor& x = layer.x;
  const bool narrow = x.scalar_type() == kBFloat16;  // its gates are float32: no step multiplies x then
  Maybe gates;
  if (layer.index || narrow || projects_first(s, x.element_size()))
    gates = new_passing(x, {s.directions, s.gate_rows, 4 * s.hidden}, narrow ? kFloat : x.scalar_type());
  LayerResults r{
      new_output(x, layer.output_shape.empty() ? std::vector{need_output ? s.positions : 0, s.directions * s.hidden}
                                               : layer.output_shape),
      uninitialized(x, {s.directions, s.rows, s.hidden}),
      uninitialized(x, {s.directions, s.rows, s.hidden}),
      std::nullopt,
      std::nullopt,
      std::nullopt};
  if (trains) {
    if (layer.place) r.packed_output = new_passing(x, {s.positions, s.directions * s.hidden});
    r.activations = new_passing(x, {s.directions, s.positions, 4 * s.hidden});
    r.cells = new_passing(x, {s.directions, s.positions, s.hidden});
  }
  dispatch(x, "x", [&]<class T>(T) {
    using A = Accumulator<T>;
    if (panels) check_panels<T>(*panels, x, s.directions, {s.hidden, 0, s.input});
    LstmForward<T> p{};
    p.shape = s;
    p.w_hh = data<T>(layer.w_hh), p.h0 = data<T>(layer.h0), p.c0 = data<T>(layer.c0);
    p.output = need_output ? mutable_data<T>(r.output) : nullptr;
    p.place = layer.place;
    p.h_n = mutable_data<T>(r.h_n), p.c_n = mutable_data<T>(r.c_n);
    if (r.packed_output) p.packed_output = mutable_data<T>(*r.packed_output);
    if (trains) p.activations = mutable_data<T>(*r.activations), p.cells = mutable_data<T>(*r.cells);
    p.x = data<T>(x), p.w_ih = data<T>(layer.w_ih), p.bias = data<A>(layer.bias);
    p.index = data<int64_t>(layer.index);
    if (gates) p.gates = p.projected_x = mutable_data<A>(*gates);
    run_forward<T>(p, data<T>(panels));
  });
  return r;
}

std::pair<LayerGradientsGiven, LayerSaved> check_for_backward(const LstmShape& s, const Tensor& like, const char* name,
                                                              const LayerGradientsGiven& grads, const LayerSaved& saved,
                                                              std::vector<int64_t> output_shape,
                                                              std::vector<int64_t> grad_shape) {
  const int64_t D = s.directions, H = s.hidden, N = s.positions, B = s.rows;
  if (output_shape.empty()) output_shape = {N, D * H};
  if (grad_shape.empty()) grad_shape = output_shape;
  const auto checked = [&](const Maybe& t, const char* own_name, const std::vector<int64_t>& shape) {
    if (t) check_shape(*t, own_name, shape), check_like(*t, own_name, like, name);
    return dense(t);
  };
  LayerSaved saved_c{*checked(saved.activations, "activations", {D, N, 4 * H}),
                     *checked(saved.cells, "cells", {D, N, H}), *checked(saved.output, "output", output_shape)};
  return {{checked(grads.output, "grad_output", grad_shape), checked(grads.h_n, "grad_h_n", {D, B, H}),
           checked(grads.c_n, "grad_c_n", {D, B, H})},
          std::move(saved_c)};
}

LayerGradients run_layer_backward(const Layer& layer, const LayerGradientsGiven& grads, const LayerSaved& saved,
                                  const LayerNeeds& needs) {
  const LstmShape& s = layer.shape;
  const int64_t D = s.directions, H = s.hidden, B = s.rows, R = s.gate_rows, I = s.input;
  const ScalarType given = layer.x.scalar_type(), summed = given == kBFloat16 ? kFloat : given;
  const auto wanted = [&](bool need, std::vector<int64_t> shape, ScalarType dtype) {
    if (layer.flat) shape.erase(shape.begin());
    Tensor t = need ? new_passing(layer.x, shape, dtype) : uninitialized({0}, dtype);
    if (B == 0) torch::stable::zero_(t);  // no step sets it
    return t;
  };
  LayerGradients g{wanted(needs.x, {D, R, I}, given),
                   wanted(needs.w_ih, {D, 4 * H, I}, summed),
                   wanted(needs.w_hh, {D, 4 * H, H}, summed),
                   wanted(needs.bias, {D, 4 * H}, summed),
                   uninitialized(layer.x, needs.states ? std::vector{D, B, H} : std::vector<int64_t>{0}),
                   uninitialized(layer.x, needs.states ? std::vector{D, B, H} : std::vector<int64_t>{0})};
  Maybe grad_gates;
  if (layer.index && (needs.x || needs.w_ih || needs.bias)) grad_gates = new_passing(layer.x, {D, R, 4 * H}, summed);
  dispatch(layer.x, "x", [&]<class T>(T) {
    using A = Accumulator<T>;
    LstmBackward<T> p{};
    p.shape = s;
    p.grad_output = data<T>(grads.output), p.grad_h_n = data<T>(grads.h_n), p.grad_c_n = data<T>(grads.c_n);
    p.activations = data<T>(saved.activations), p.cells = data<T>(saved.cells), p.output = data<T>(saved.output);
    p.w_hh = data<T>(layer.w_hh), p.h0 = data<T>(layer.h0), p.c0 = data<T>(layer.c0), p.place = layer.place;
    if (needs.states) p.grad_h0 = mutable_data<T>(g.h0), p.grad_c0 = mutable_data<T>(g.c0);
    p.x = data<T>(layer.x), p.w_ih = data<T>(layer.w_ih), p.index = data<int64_t>(layer.index);
    if (grad_gates) p.grad_gates = mutable_data<A>(*grad_gates);
    if (needs.x) p.grad_x = mutable_data<T>(g.x);
    if (needs.w_ih) p.grad_w_ih = mutable_data<A>(g.w_ih);
    if (needs.w_hh) p.grad_w_hh = mutable_data<A>(g.w_hh);
    if (needs.bias) p.grad_bias = mutable_data<A>(g.bias);
    run_backward<T>(p);
  });
  return g;
}

}  // namespace textclf_fast::cpu

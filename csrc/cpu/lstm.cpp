// The LSTM ops on CPU tensors: checks, allocation, dispatch on the dtype.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "../tensor_checks.h"
#include "launch.h"
#include "tensors.h"

namespace textclf_fast::cpu {
namespace {

struct Results {
  Tensor output, h_n, c_n;
  std::optional<Tensor> activations, cells;
};

Results forward(const Tensor& gates, const std::optional<Tensor>& index, const Tensor& batch_sizes, const Tensor& w_hh,
                const Tensor& h0, const Tensor& c0, const std::optional<Tensor>& panels, bool need_output,
                bool need_activations, bool need_cells, const std::optional<Tensor>& w_hr) {
  const auto checked = check_layer(gates, index, gates.dim() == 3 ? gates.size(1) : 0, batch_sizes, w_hh, h0, c0, w_hr);
  const LstmShape& s = checked.shape;
  check_gates_dtype(gates, "gates", w_hh);
  check_index_range(index, s.gate_rows);
  if (computes_as_float(w_hh, w_hr)) {
    const Results r = forward(gates, index, batch_sizes, as(kFloat, w_hh), as(kFloat, h0), as(kFloat, c0), std::nullopt,
                              need_output, need_activations, need_cells, as(kFloat, w_hr));
    return {as(kBFloat16, r.output), as(kBFloat16, r.h_n), as(kBFloat16, r.c_n), as(kBFloat16, r.activations),
            as(kBFloat16, r.cells)};
  }
  const Tensor gates_c = dense(gates), w_hh_c = dense(w_hh);
  const Tensor h0_c = dense(h0), c0_c = dense(c0);
  const auto index_c = dense(index), w_hr_c = dense(w_hr);
  Results r{new_output(w_hh, {need_output ? s.positions : 0, s.directions * s.width()}),
            uninitialized(w_hh, {s.directions, s.rows, s.width()}),
            uninitialized(w_hh, {s.directions, s.rows, s.hidden}), std::nullopt, std::nullopt};
  if (need_activations) r.activations = new_passing(w_hh, {s.directions, s.positions, 4 * s.hidden});
  if (need_cells) {  // for a training step, or for the caller to keep
    const std::vector<int64_t> shape{s.directions, s.positions, s.hidden};
    r.cells = need_activations ? new_passing(w_hh, shape) : new_output(w_hh, shape);
  }
  dispatch(w_hh, "w_hh", [&]<class T>(T) {
    if (panels) check_panels<T>(*panels, w_hh, s.directions, {s.hidden, s.projected});
    run_forward<T>({s, data<Accumulator<T>>(gates_c), data<int64_t>(index_c), data<T>(w_hh_c), data<T>(h0_c),
                    data<T>(c0_c), need_output ? mutable_data<T>(r.output) : nullptr, nullptr, mutable_data<T>(r.h_n),
                    mutable_data<T>(r.c_n), need_activations ? mutable_data<T>(*r.activations) : nullptr,
                    need_cells ? mutable_data<T>(*r.cells) : nullptr, data<T>(w_hr_c)},
                   data<T>(panels));
  });
  return r;
}

std::tuple<Tensor, Tensor, Tensor> lstm_inference(const Tensor& gates, const std::optional<Tensor>& index,
                                                  const Tensor& batch_sizes, const Tensor& w_hh, const Tensor& h0,
                                                  const Tensor& c0, const std::optional<Tensor>& panels,
                                                  bool need_output, const std::optional<Tensor>& w_hr) {
  Results r = forward(gates, index, batch_sizes, w_hh, h0, c0, panels, need_output, false, false, w_hr);
  return {r.output, r.h_n, r.c_n};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_cells_inference(const Tensor& gates, const std::optional<Tensor>& index,
                                                                const Tensor& batch_sizes, const Tensor& w_hh,
                                                                const Tensor& h0, const Tensor& c0,
                                                                const std::optional<Tensor>& panels,
                                                                const std::optional<Tensor>& w_hr) {
  Results r = forward(gates, index, batch_sizes, w_hh, h0, c0, panels, true, false, true, w_hr);
  return {r.output, r.h_n, r.c_n, *r.cells};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_training(const Tensor& gates,
                                                                 const std::optional<Tensor>& index,
                                                                 const Tensor& batch_sizes, const Tensor& w_hh,
                                                                 const Tensor& h0, const Tensor& c0,
                                                                 const std::optional<Tensor>& w_hr) {
  Results r = forward(gates, index, batch_sizes, w_hh, h0, c0, std::nullopt, true, true, true, w_hr);
  return {r.output, r.h_n, r.c_n, *r.activations, *r.cells};
}

Tensor pack_recurrent(const Tensor& w_hh, const std::optional<Tensor>& w_hr, const std::optional<Tensor>& w_ih) {
  const auto [directions, hidden] = check_recurrent(w_hh, w_hr);
  WeightSizes sizes{hidden, w_hr ? w_hh.size(2) : 0};
  if (w_ih) {
    STD_TORCH_CHECK(!w_hr, "w_ih: expected None beside w_hr");
    sizes.input = w_ih->dim() == 3 ? w_ih->size(2) : 0;
    check_shape(*w_ih, "w_ih", {directions, 4 * hidden, sizes.input});
    STD_TORCH_CHECK(sizes.input > 0, "w_ih: expected I > 0, got 0");
    check_like(*w_ih, "w_ih", w_hh, "w_hh");
  }
  if (computes_as_float(w_hh, w_hr, w_ih)) return uninitialized(w_hh, {panels_size<BFloat16>(directions, sizes)});
  const Tensor w_hh_c = dense(w_hh);
  const auto w_hr_c = dense(w_hr), w_ih_c = dense(w_ih);
  Tensor panels;
  dispatch(w_hh, "w_hh", [&, D = directions]<class T>(T) {
    panels = uninitialized(w_hh, {panels_size<T>(D, sizes)});
    pack_panels<T>({data<T>(w_hh_c), data<T>(w_hr_c), data<T>(w_ih_c)}, D, sizes, mutable_data<T>(panels));
  });
  return panels;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_backward(
    const std::optional<Tensor>& grad_output, const std::optional<Tensor>& grad_h_n,
    const std::optional<Tensor>& grad_c_n, const Tensor& activations, const Tensor& cells, const Tensor& output,
    const std::optional<Tensor>& index, int64_t gate_rows, const Tensor& batch_sizes, const Tensor& w_hh,
    const Tensor& h0, const Tensor& c0, bool need_w_hh, const std::optional<Tensor>& grad_cells,
    const std::optional<Tensor>& w_hr, bool need_w_hr, bool need_gates) {
  STD_TORCH_CHECK(gate_rows >= 0, "gate_rows: expected at least 0, got ", gate_rows);
  STD_TORCH_CHECK(w_hr || !need_w_hr, "need_w_hr: expected False without w_hr, got True");
  const auto checked = check_layer(activations, index, gate_rows, batch_sizes, w_hh, h0, c0, w_hr);
  const LstmShape& s = checked.shape;
  check_like(w_hh, "w_hh", activations, "activations");
  check_index_range(index, s.gate_rows);
  check_shape(activations, "activations", {s.directions, s.positions, 4 * s.hidden});
  check_shape(cells, "cells", {s.directions, s.positions, s.hidden});
  check_shape(output, "output", {s.positions, s.directions * s.width()});
  check_like(cells, "cells", activations);
  check_like(output, "output", activations);
  if (computes_as_float(w_hh, w_hr)) {
    const auto [gates, weight, h, c, projection] = lstm_backward(
        as(kFloat, grad_output), as(kFloat, grad_h_n), as(kFloat, grad_c_n), as(kFloat, activations), as(kFloat, cells),
        as(kFloat, output), index, gate_rows, batch_sizes, as(kFloat, w_hh), as(kFloat, h0), as(kFloat, c0), need_w_hh,
        as(kFloat, grad_cells), as(kFloat, w_hr), need_w_hr, need_gates);
    return {gates, as(kBFloat16, weight), as(kBFloat16, h), as(kBFloat16, c), as(kBFloat16, projection)};
  }
  const auto checked_grad = [&](const std::optional<Tensor>& grad, const char* name,
                                const std::vector<int64_t>& shape) {
    if (grad) check_shape(*grad, name, shape), check_like(*grad, name, activations);
    return dense(grad);
  };
  const auto grad_output_c = checked_grad(grad_output, "grad_output", {s.positions, s.directions * s.width()});
  const auto grad_h_n_c = checked_grad(grad_h_n, "grad_h_n", {s.directions, s.rows, s.width()});
  const auto grad_c_n_c = checked_grad(grad_c_n, "grad_c_n", {s.directions, s.rows, s.hidden});
  const auto grad_cells_c = checked_grad(grad_cells, "grad_cells", {s.directions, s.positions, s.hidden});
  const Tensor activations_c = dense(activations), cells_c = dense(cells);
  const Tensor output_c = dense(output), w_hh_c = dense(w_hh);
  const Tensor h0_c = dense(h0), c0_c = dense(c0);
  const auto index_c = dense(index), w_hr_c = dense(w_hr);

  // Sums are made, and the gates' gradients given out, in the type that they are summed in.
  const ScalarType given = activations.scalar_type();
  const auto summed = given == ScalarType::BFloat16 ? ScalarType::Float : given;
  // (Without an index they may be where the kernels keep them for the rest.)
  const bool keeps_gates = need_gates || !index_c;
  Tensor grad_gates = keeps_gates ? new_passing(activations, {s.directions, s.gate_rows, 4 * s.hidden}, summed)
                                  : uninitialized({0}, summed);
  Tensor grad_w_hh = need_w_hh ? new_passing(activations, {s.directions, 4 * s.hidden, s.width()}, summed)
                               : uninitialized({0}, summed);
  Tensor grad_w_hr =
      need_w_hr ? new_passing(activations, {s.directions, s.projected, s.hidden}, summed) : uninitialized({0}, summed);
  if (s.rows == 0)  // no step sets them
    torch::stable::zero_(grad_gates), torch::stable::zero_(grad_w_hh), torch::stable::zero_(grad_w_hr);
  Tensor grad_h0 = uninitialized(activations, {s.directions, s.rows, s.width()});
  Tensor grad_c0 = uninitialized(activations, {s.directions, s.rows, s.hidden});
  dispatch(activations, "activations", [&]<class T>(T) {
    using A = Accumulator<T>;
    run_backward<T>({s, data<T>(grad_output_c), data<T>(grad_h_n_c), data<T>(grad_c_n_c), data<T>(grad_cells_c),
                     data<T>(activations_c), data<T>(cells_c), data<T>(output_c), data<int64_t>(index_c),
                     data<T>(w_hh_c), data<T>(h0_c), data<T>(c0_c), keeps_gates ? mutable_data<A>(grad_gates) : nullptr,
                     need_w_hh ? mutable_data<A>(grad_w_hh) : nullptr, mutable_data<T>(grad_h0),
                     mutable_data<T>(grad_c0), data<T>(w_hr_c), need_w_hr ? mutable_data<A>(grad_w_hr) : nullptr});
  });
  if (summed != given) grad_w_hh = as(given, grad_w_hh), grad_w_hr = as(given, grad_w_hr);
  if (!need_gates) grad_gates = uninitialized({0}, summed);
  return {grad_gates, grad_w_hh, grad_h0, grad_c0, grad_w_hr};
}

}  // namespace
}  // namespace textclf_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CPU, m) {
  m.impl("lstm_inference", TORCH_BOX(&textclf_fast::cpu::lstm_inference));
  m.impl("lstm_cells_inference", TORCH_BOX(&textclf_fast::cpu::lstm_cells_inference));
  m.impl("lstm_training", TORCH_BOX(&textclf_fast::cpu::lstm_training));
  m.impl("lstm_training_forward", TORCH_BOX(&textclf_fast::cpu::lstm_training));
  m.impl("pack_recurrent", TORCH_BOX(&textclf_fast::cpu::pack_recurrent));
  m.impl("lstm_backward", TORCH_BOX(&textclf_fast::cpu::lstm_backward));
}

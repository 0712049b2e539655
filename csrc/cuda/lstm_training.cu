// The ops of training on CUDA tensors. None waits for the GPU.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>

#include "lstm_forward.h"
#include "lstm_gradients.h"

namespace textclf_fast::cuda {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_training(const Tensor& gates,
                                                                 const std::optional<Tensor>& index,
                                                                 const Tensor& batch_sizes, const Tensor& w_hh,
                                                                 const Tensor& h0, const Tensor& c0,
                                                                 const std::optional<Tensor>& w_hr) {
  STD_TORCH_CHECK(!w_hr, "w_hr: expected None on CUDA tensors, whose kernel does not project");
  const ForwardResults r =
      forward_layer(gates, index, batch_sizes, w_hh, h0, c0, {.output = true, .activations = true, .cells = true});
  return {*r.output, r.h_n, r.c_n, *r.activations, *r.cells};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_backward(
    const std::optional<Tensor>& grad_output, const std::optional<Tensor>& grad_h_n,
    const std::optional<Tensor>& grad_c_n, const Tensor& activations, const Tensor& cells, const Tensor& output,
    const std::optional<Tensor>& index, int64_t gate_rows, const Tensor& batch_sizes, const Tensor& w_hh,
    const Tensor& h0, const Tensor& c0, bool need_w_hh, const std::optional<Tensor>& grad_cells,
    const std::optional<Tensor>& w_hr, bool need_w_hr, bool need_gates) {
  STD_TORCH_CHECK(!w_hr, "w_hr: expected None on CUDA tensors, whose kernel does not project");
  STD_TORCH_CHECK(!need_w_hr, "need_w_hr: expected False without w_hr, got True");
  const Gradients g =
      backward_layer({.grad_output = grad_output, .grad_h_n = grad_h_n, .grad_c_n = grad_c_n, .grad_cells = grad_cells},
                     activations, cells, output, index, gate_rows, batch_sizes, w_hh, h0, c0, need_w_hh, need_gates);
  return {g.gates, g.w_hh, g.h0, g.c0, torch::stable::new_empty(g.gates, {0})};
}

}  // namespace
}  // namespace textclf_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CUDA, m) {
  m.impl("lstm_training", TORCH_BOX(&textclf_fast::cuda::lstm_training));
  m.impl("lstm_training_forward", TORCH_BOX(&textclf_fast::cuda::lstm_training));
  m.impl("lstm_backward", TORCH_BOX(&textclf_fast::cuda::lstm_backward));
}

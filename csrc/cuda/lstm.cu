// The ops of inference on CUDA tensors.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>

#include "lstm_forward.h"

namespace textclf_fast::cuda {
namespace {

void refuse_what_kernels_lack(const std::optional<Tensor>& panels, const std::optional<Tensor>& w_hr) {
  STD_TORCH_CHECK(!w_hr, "w_hr: expected None on CUDA tensors, whose kernel does not project");
  STD_TORCH_CHECK(!panels, "panels: expected None on CUDA tensors, whose kernels read w_hh itself");
}

std::tuple<Tensor, Tensor, Tensor> lstm_inference(const Tensor& gates, const std::optional<Tensor>& index,
                                                  const Tensor& batch_sizes, const Tensor& w_hh, const Tensor& h0,
                                                  const Tensor& c0, const std::optional<Tensor>& panels,
                                                  bool need_output, const std::optional<Tensor>& w_hr) {
  refuse_what_kernels_lack(panels, w_hr);
  const ForwardResults r = forward_layer(gates, index, batch_sizes, w_hh, h0, c0, {.output = need_output});
  const auto none = [&] { return torch::stable::new_empty(w_hh, {0, w_hh.size(0) * w_hh.size(2)}); };
  return {r.output ? *r.output : none(), r.h_n, r.c_n};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_cells_inference(const Tensor& gates, const std::optional<Tensor>& index,
                                                                const Tensor& batch_sizes, const Tensor& w_hh,
                                                                const Tensor& h0, const Tensor& c0,
                                                                const std::optional<Tensor>& panels,
                                                                const std::optional<Tensor>& w_hr) {
  refuse_what_kernels_lack(panels, w_hr);
  const ForwardResults r = forward_layer(gates, index, batch_sizes, w_hh, h0, c0, {.output = true, .cells = true});
  return {*r.output, r.h_n, r.c_n, *r.cells};
}

}  // namespace
}  // namespace textclf_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CUDA, m) {
  m.impl("lstm_inference", TORCH_BOX(&textclf_fast::cuda::lstm_inference));
  m.impl("lstm_cells_inference", TORCH_BOX(&textclf_fast::cuda::lstm_cells_inference));
}

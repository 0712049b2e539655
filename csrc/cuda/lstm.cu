// The ops of inference on CUDA tensors.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>

#include "layout_in_place.h"
#include "lstm_forward.h"
#include "lstm_tensors.h"

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

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> layout_in_place(const Tensor& lengths, int64_t steps,
                                                                   int64_t step_stride, int64_t row_stride) {
  check_int64_vector(lengths, "lengths");
  const int64_t rows = lengths.size(0);
  STD_TORCH_CHECK(steps >= 0, "steps: got ", steps, ", expected at least 0");
  const bool batch_first = step_stride != rows || row_stride != 1;
  STD_TORCH_CHECK(!batch_first || (step_stride == 1 && row_stride == steps), "step_stride, row_stride: got ",
                  step_stride, " and ", row_stride, ", expected ", rows, " and 1 or, batch-first, 1 and ", steps);
  STD_TORCH_CHECK(rows == 0 || steps <= INT32_MAX / rows, "steps: got ", steps, " and ", rows,
                  " rows, expected fewer than 2^31 positions");
  const torch::stable::accelerator::DeviceGuard guard(lengths.get_device_index());
  const Tensor lengths_c = dense(lengths);
  const auto make = [&](int64_t count) { return torch::stable::new_empty(lengths_c, {count}); };
  const Tensor positions = make(steps * rows), places = make(steps * rows), batch_sizes = make(steps);
  const Tensor order = make(rows), ranks = make(rows);
  const Tensor starts = torch::stable::new_empty(lengths_c, {steps + 1}, ScalarType::Int);
  STD_CUDA_CHECK(launch_layout_in_place(
      {pointer<int64_t>(lengths_c), pointer_to_write<int64_t>(positions), pointer_to_write<int64_t>(places),
       pointer_to_write<int64_t>(batch_sizes), pointer_to_write<int64_t>(order), pointer_to_write<int64_t>(ranks),
       pointer_to_write<int32_t>(starts), int(steps), int(rows), batch_first},
      current_stream(lengths.get_device_index())));
  return {positions, places, batch_sizes, order, ranks};
}

}  // namespace
}  // namespace textclf_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CUDA, m) {
  m.impl("lstm_inference", TORCH_BOX(&textclf_fast::cuda::lstm_inference));
  m.impl("lstm_cells_inference", TORCH_BOX(&textclf_fast::cuda::lstm_cells_inference));
  m.impl("layout_in_place", TORCH_BOX(&textclf_fast::cuda::layout_in_place));
}

// lstm_inference on CUDA tensors: checks, allocation, the loop over steps. It never waits for the GPU.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#include "../tensor_checks.h"
#include "lstm_stepwise.h"

namespace textclf_fast::cuda {
namespace {

cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

// The first rows of a matrix, a view.
Tensor first_rows(Tensor matrix, int64_t rows) { return torch::stable::narrow(matrix, 0, 0, rows); }

// A new tensor with the same values, out of autograd's sight.
Tensor copy(const Tensor& source, cudaStream_t stream) {
  const Tensor dense = torch::stable::contiguous(source);
  Tensor result = torch::stable::new_empty(dense, dense.sizes());
  STD_CUDA_CHECK(cudaMemcpyAsync(result.mutable_data_ptr(), dense.const_data_ptr(),
                                 dense.numel() * dense.element_size(), cudaMemcpyDeviceToDevice, stream));
  return result;
}

// h and c (D, B, H) hold h0 and c0 at first. A step overwrites the rows that are alive and leaves the others, in
// whichever direction it walks: what remains at the end is h_n and c_n.
template <class T>
void walk(const LstmShape& shape, const Tensor& gates, const std::optional<Tensor>& index, const Tensor& w_hh,
          const Tensor& h, const Tensor& c, const Tensor& output, cudaStream_t stream) {
  const Tensor recurrent = torch::stable::new_empty(gates, {shape.rows, 4 * shape.hidden});
  for (int64_t d = 0; d < shape.directions; ++d) {
    const Tensor h_d = torch::stable::select(h, 0, d), c_d = torch::stable::select(c, 0, d);        // (B, H)
    const Tensor w_transposed = torch::stable::transpose(torch::stable::select(w_hh, 0, d), 0, 1);  // (H, 4H)
    for (int64_t step = 0; step < shape.steps; ++step) {
      const int64_t t = d == 0 ? step : shape.steps - 1 - step;
      const int64_t rows = shape.batch_sizes[t];
      // PyTorch's own GEMM, so that its precision switches for matmul apply; not through the dispatcher, where
      // autocast or autograd would step in.
      STABLE_TORCH_ERROR_CODE_CHECK(
          aoti_torch_cuda_mm_out(first_rows(recurrent, rows).get(), first_rows(h_d, rows).get(), w_transposed.get()));
      launch_lstm_step<T>({.gates = static_cast<const T*>(gates.const_data_ptr()),
                           .index = index ? static_cast<const int64_t*>(index->const_data_ptr()) : nullptr,
                           .recurrent = static_cast<const T*>(recurrent.const_data_ptr()),
                           .h = static_cast<T*>(h_d.mutable_data_ptr()),
                           .c = static_cast<T*>(c_d.mutable_data_ptr()),
                           .output = static_cast<T*>(output.mutable_data_ptr()),
                           .position = shape.offsets[t],
                           .rows = rows,
                           .hidden = shape.hidden,
                           .gate_rows = shape.gate_rows,
                           .directions = shape.directions,
                           .direction = d},
                          stream);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
  }
}

std::tuple<Tensor, Tensor, Tensor> lstm_inference(const Tensor& gates, const std::optional<Tensor>& index,
                                                  const Tensor& batch_sizes, const Tensor& w_hh, const Tensor& h0,
                                                  const Tensor& c0, const std::optional<Tensor>& panels,
                                                  bool need_output, const std::optional<Tensor>& w_hr) {
  STD_TORCH_CHECK(!w_hr, "w_hr: expected None on CUDA tensors, whose kernel does not project");
  STD_TORCH_CHECK(!panels, "panels: expected None on CUDA tensors, whose kernels read w_hh itself");
  STD_TORCH_CHECK(gates.is_cuda(), "gates: expected a CUDA tensor, as the others are");
  const auto checked = check_layer(gates, index, gates.dim() == 3 ? gates.size(1) : 0, batch_sizes, w_hh, h0, c0);
  const LstmShape& shape = checked.shape;
  check_like(w_hh, "w_hh", gates);
  const bool is_double = gates.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(is_double || gates.scalar_type() == ScalarType::Float, "gates: expected dtype float32 or float64");

  const torch::stable::accelerator::DeviceGuard guard(gates.get_device_index());
  const cudaStream_t stream = current_stream(gates.get_device_index());
  const Tensor gates_c = torch::stable::contiguous(gates);
  const auto index_c = index ? std::optional<Tensor>(torch::stable::contiguous(*index)) : std::nullopt;
  const Tensor output = torch::stable::new_empty(gates, {shape.positions, shape.directions * shape.hidden});
  const Tensor h = copy(h0, stream), c = copy(c0, stream);
  if (shape.rows > 0) (is_double ? walk<double> : walk<float>)(shape, gates_c, index_c, w_hh, h, c, output, stream);
  if (!need_output) return {torch::stable::new_empty(gates, {0, shape.directions * shape.hidden}), h, c};
  return {output, h, c};
}

}  // namespace
}  // namespace textclf_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CUDA, m) {
  m.impl("lstm_inference", TORCH_BOX(&textclf_fast::cuda::lstm_inference));
}

// lstm_inference on CUDA tensors: checks, allocation, the plan, and the loop over steps where that is stepwise. It
// never waits for the GPU.
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
#include <utility>

#include "lstm_persistent.h"
#include "lstm_stepwise.h"
#include "lstm_tensors.h"

namespace textclf_fast::cuda {
namespace {

// The first rows of a matrix, a view.
Tensor first_rows(Tensor matrix, int64_t rows) { return torch::stable::narrow(matrix, 0, 0, rows); }

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

struct Results {
  std::optional<Tensor> output;
  Tensor h, c;  // h0 and c0 at first
};

template <class Product>
void run_persistent(const Plan& plan, const LstmShape& shape, const Tensor& gates, const std::optional<Tensor>& index,
                    const std::optional<Tensor>& offsets, const Tensor& w_hh, const Tensor& h0, const Tensor& c0,
                    const Results& results, cudaStream_t stream) {
  using Number = typename Product::Number;
  PersistentForward<Number> forward{};
  forward.steps = int(shape.steps);
  forward.hidden = int(shape.hidden);
  forward.rows = int(shape.rows);
  forward.positions = int(shape.positions);
  forward.gate_rows = shape.gate_rows;
  forward.offsets = offsets ? pointer<int32_t>(*offsets) : nullptr;
  forward.gates = pointer<float>(gates);
  forward.index = index ? pointer<int64_t>(*index) : nullptr;
  forward.w_hh = pointer<Number>(w_hh);
  forward.h0 = pointer<Number>(h0);
  forward.c0 = pointer<Number>(c0);
  forward.output = results.output ? pointer_to_write<Number>(*results.output) : nullptr;
  forward.h_n = pointer_to_write<Number>(results.h);
  forward.c_n = pointer_to_write<Number>(results.c);

  std::optional<Tensor> workspace;  // of the grid's teams: images, then counters
  if (plan.family == Family::kGrid) {
    const int64_t teams = plan.slices * shape.directions, images = teams * 2 * plan.tiles.image_bytes();
    const int64_t bytes = images + teams * int64_t(sizeof(uint32_t));
    workspace = torch::stable::new_empty(gates, {bytes}, ScalarType::Byte);
    auto* memory = pointer_to_write<unsigned char>(*workspace);
    STD_CUDA_CHECK(cudaMemsetAsync(memory, 0, size_t(bytes), stream));
    forward.workspace = {reinterpret_cast<uint32_t*>(memory + images), memory};
  }
  STD_CUDA_CHECK(launch_persistent<Product>(plan, forward, int(shape.directions), stream));
}

// The stepwise family has kernels for float32 and float64: 16-bit layers, which come here on old GPUs or where they are
// very large, are computed in float32.
void run_stepwise(const LstmShape& shape, const Tensor& gates, const std::optional<Tensor>& index, const Tensor& w_hh,
                  const Results& results, cudaStream_t stream) {
  const Tensor& output = *results.output;
  if (w_hh.scalar_type() == ScalarType::Double)
    return walk<double>(shape, gates, index, w_hh, results.h, results.c, output, stream);
  const auto in_float = [](const Tensor& t) { return torch::stable::to(t, ScalarType::Float); };
  const Tensor wide = in_float(output), h = in_float(results.h), c = in_float(results.c);
  walk<float>(shape, gates, index, in_float(w_hh), h, c, wide, stream);
  if (w_hh.scalar_type() == ScalarType::Float) return;  // the very tensors
  for (auto [to, from] : {std::pair(output, wide), std::pair(results.h, h), std::pair(results.c, c)})
    torch::stable::copy_(to, from);
}

std::tuple<Tensor, Tensor, Tensor> lstm_inference(const Tensor& gates, const std::optional<Tensor>& index,
                                                  const Tensor& batch_sizes, const Tensor& w_hh, const Tensor& h0,
                                                  const Tensor& c0, const std::optional<Tensor>& panels,
                                                  bool need_output, const std::optional<Tensor>& w_hr) {
  STD_TORCH_CHECK(!w_hr, "w_hr: expected None on CUDA tensors, whose kernel does not project");
  STD_TORCH_CHECK(!panels, "panels: expected None on CUDA tensors, whose kernels read w_hh itself");
  STD_TORCH_CHECK(gates.is_cuda(), "gates: expected a CUDA tensor, as the others are");
  const CheckedShape checked = check_cuda_layer(gates, index, batch_sizes, w_hh, h0, c0);
  const LstmShape& shape = checked.shape;
  const bool is_double = gates.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(is_double || gates.scalar_type() == ScalarType::Float, "gates: expected dtype float32 or float64");

  const int32_t device = gates.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const cudaStream_t stream = current_stream(device);
  const Precision precision = precision_of(w_hh);
  const Plan plan =
      plan_forward({shape.rows, shape.hidden, shape.directions, shape.steps, shape.positions, shape.gate_rows},
                   precision, limits_of(device));
  const bool stepwise = plan.family == Family::kStepwise;
  STD_TORCH_CHECK(!stepwise || !batch_sizes.is_cuda(), "batch_sizes: expected a tensor on the CPU, as ", plan.reason,
                  " and each step is a launch of its own");

  const Tensor gates_c = dense(gates), w_hh_c = dense(w_hh);
  const auto index_c = dense(index);
  Results results{std::nullopt, copy(h0, stream), copy(c0, stream)};
  if (need_output || stepwise)
    results.output = torch::stable::new_empty(w_hh, {shape.positions, shape.directions * shape.hidden});
  if (shape.rows > 0) {
    if (stepwise) {
      run_stepwise(shape, gates_c, index_c, w_hh_c, results, stream);
    } else {
      const auto offsets = step_offsets(checked, gates, stream);
      const Tensor h0_c = dense(h0), c0_c = dense(c0);
      const auto run = [&](auto product) {
        run_persistent<decltype(product)>(plan, shape, gates_c, index_c, offsets, w_hh_c, h0_c, c0_c, results, stream);
      };
      if (precision == Precision::kFloat32) run(Float32Product{});
      if (precision == Precision::kTf32) run(Tf32Product{});
      if (precision == Precision::kBFloat16) run(BFloat16Product{});
      if (precision == Precision::kHalf) run(HalfProduct{});
    }
  }
  if (!need_output) results.output = torch::stable::new_empty(w_hh, {0, shape.directions * shape.hidden});
  return {*results.output, results.h, results.c};
}

}  // namespace
}  // namespace textclf_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(textclf_fast, CUDA, m) {
  m.impl("lstm_inference", TORCH_BOX(&textclf_fast::cuda::lstm_inference));
}

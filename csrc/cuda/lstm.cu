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

#include <atomic>
#include <optional>
#include <tuple>
#include <vector>

#include "../tensor_checks.h"
#include "lstm_offsets.h"
#include "lstm_persistent.h"
#include "lstm_stepwise.h"

namespace textclf_fast::cuda {
namespace {

// Whether float32 layers may round W_hh and h to tf32; set from Python. Strict unless told otherwise.
std::atomic<bool> allow_tf32{false};

cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

// The first rows of a matrix, a view.
Tensor first_rows(Tensor matrix, int64_t rows) { return torch::stable::narrow(matrix, 0, 0, rows); }

// A new tensor with the same values, out of autograd's sight.
Tensor copy(const Tensor& source, cudaStream_t stream) {
  const Tensor source_c = dense(source);
  Tensor result = torch::stable::new_empty(source_c, source_c.sizes());
  STD_CUDA_CHECK(cudaMemcpyAsync(result.mutable_data_ptr(), source_c.const_data_ptr(),
                                 source_c.numel() * source_c.element_size(), cudaMemcpyDeviceToDevice, stream));
  return result;
}

template <class T>
const T* pointer(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* pointer_to_write(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

Precision precision_of(const Tensor& w_hh) {
  switch (w_hh.scalar_type()) {
    case ScalarType::Double:
      return Precision::kFloat64;
    case ScalarType::BFloat16:
      return Precision::kBFloat16;
    case ScalarType::Half:
      return Precision::kHalf;
    default:
      return allow_tf32 ? Precision::kTf32 : Precision::kFloat32;
  }
}

// Of each device, asked for once.
const DeviceLimits& limits_of(int32_t device) {
  static const std::vector<DeviceLimits> devices = [] {
    int count = 0;
    STD_CUDA_CHECK(cudaGetDeviceCount(&count));
    std::vector<DeviceLimits> limits;
    for (int d = 0; d < count; ++d) {
      const auto ask = [d](cudaDeviceAttr attribute) {
        int value = 0;
        STD_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, d));
        return value;
      };
      const int capability = 10 * ask(cudaDevAttrComputeCapabilityMajor) + ask(cudaDevAttrComputeCapabilityMinor);
      // 8 blocks are what every GPU with clusters has. Blocks that wait for each other need a launch that says so.
      limits.push_back({capability, ask(cudaDevAttrCooperativeLaunch) ? ask(cudaDevAttrMultiProcessorCount) : 0,
                        ask(cudaDevAttrMaxSharedMemoryPerBlockOptin), ask(cudaDevAttrClusterLaunch) ? 8 : 1});
    }
    return limits;
  }();
  return devices.at(size_t(device));
}

// Where steps begin, on the device: nothing where all rows are of one length.
std::optional<Tensor> step_offsets(const CheckedShape& checked, const Tensor& batch_sizes, const Tensor& gates,
                                   cudaStream_t stream) {
  const LstmShape& shape = checked.shape;
  const bool on_device = batch_sizes.is_cuda();
  if (!on_device && shape.batch_sizes[shape.steps - 1] == shape.rows) return std::nullopt;
  const Tensor offsets = torch::stable::new_empty(gates, {shape.steps + 1}, ScalarType::Int);
  if (on_device) {
    STD_CUDA_CHECK(launch_step_offsets(
        {pointer<int64_t>(checked.batch_sizes), pointer_to_write<int32_t>(offsets), int(shape.steps)}, stream));
    return offsets;
  }
  cudaStreamCaptureStatus capturing;
  STD_CUDA_CHECK(cudaStreamIsCapturing(stream, &capturing));
  STD_TORCH_CHECK(
      capturing == cudaStreamCaptureStatusNone,
      "batch_sizes: is on the CPU, expected on the device of gates: a CUDA graph would read it when it runs");
  const std::vector<int32_t> host(checked.offsets.begin(), checked.offsets.end());
  STD_CUDA_CHECK(cudaMemcpyAsync(offsets.mutable_data_ptr(), host.data(), host.size() * sizeof(int32_t),
                                 cudaMemcpyHostToDevice, stream));  // copied from pageable memory before it returns
  return offsets;
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

// A GEMM and a kernel a step. The GEMM is PyTorch's own, so that its precision switches for matmul apply; not through
// the dispatcher, where autocast or autograd would step in. Of 16-bit numbers its result is float32.
template <class Number>
void run_stepwise(const LstmShape& shape, const Tensor& gates, const std::optional<Tensor>& index, const Tensor& w_hh,
                  const Results& results, cudaStream_t stream) {
  using Value = StepValue<Number>;
  const Tensor recurrent = torch::stable::new_empty(gates, {shape.rows, 4 * shape.hidden});
  const Tensor c = torch::stable::to(results.c, gates.scalar_type());  // the very tensor where that is its type
  const auto multiply = [&](int64_t d, int64_t rows) {
    const Tensor product = first_rows(recurrent, rows), h = first_rows(torch::stable::select(results.h, 0, d), rows);
    const Tensor w = torch::stable::transpose(torch::stable::select(w_hh, 0, d), 0, 1);  // (H, 4H)
    STABLE_TORCH_ERROR_CODE_CHECK(
        sizeof(Number) == sizeof(Value)
            ? aoti_torch_cuda_mm_out(product.get(), h.get(), w.get())
            : aoti_torch_cuda_mm_dtype_out(product.get(), h.get(), w.get(), aoti_torch_dtype_float32()));
  };
  STD_CUDA_CHECK(
      forward_stepwise<Number>({.shape = shape,
                                .gates = pointer<Value>(gates),
                                .index = index ? pointer<int64_t>(*index) : nullptr,
                                .recurrent = pointer<Value>(recurrent),
                                .h = pointer_to_write<Number>(results.h),
                                .c = pointer_to_write<Value>(c),
                                .output = results.output ? pointer_to_write<Number>(*results.output) : nullptr,
                                .activations = nullptr,
                                .cells = nullptr},
                               multiply, stream));
  if (sizeof(Number) != sizeof(Value)) {
    Tensor c_n = results.c;
    torch::stable::copy_(c_n, c);
  }
}

// check_layer, but for batch sizes on the device, which nobody has seen: T and N come from the other tensors' shapes.
CheckedShape check_cuda_layer(const Tensor& gates, const std::optional<Tensor>& index, const Tensor& batch_sizes,
                              const Tensor& w_hh, const Tensor& h0, const Tensor& c0) {
  const int64_t gate_rows = gates.dim() == 3 ? gates.size(1) : 0;
  if (!batch_sizes.is_cuda()) return check_layer(gates, index, gate_rows, batch_sizes, w_hh, h0, c0);
  check_int64_vector(batch_sizes, "batch_sizes");
  check_device(batch_sizes, "batch_sizes", gates);
  STD_TORCH_CHECK(h0.dim() == 3, "h0: expected shape (D, B, H), got ", shape_text(h0));
  const int64_t steps = batch_sizes.size(0), positions = index ? index->size(0) : gate_rows;
  STD_TORCH_CHECK(steps > 0, "batch_sizes: expected at least one step, got none");
  // The rest is checked as for one step of all positions' rows.
  const Tensor one_step = torch::stable::full({1}, double(h0.size(1)), ScalarType::Long);
  CheckedShape checked = check_layer(gates, std::nullopt, h0.size(1), one_step, w_hh, h0, c0);
  check_index(index, gates, gate_rows, positions);
  checked.batch_sizes = dense(batch_sizes);
  checked.shape.steps = steps;
  checked.shape.positions = positions;
  checked.shape.gate_rows = gate_rows;
  checked.shape.batch_sizes = nullptr;
  checked.shape.offsets = nullptr;
  return checked;
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
  if (need_output) results.output = torch::stable::new_empty(w_hh, {shape.positions, shape.directions * shape.hidden});
  if (shape.rows > 0) {
    if (stepwise) {
      const auto run = [&](auto number) {
        run_stepwise<decltype(number)>(shape, gates_c, index_c, w_hh_c, results, stream);
      };
      if (precision == Precision::kFloat64) run(double{});
      if (precision == Precision::kFloat32 || precision == Precision::kTf32) run(float{});
      if (precision == Precision::kBFloat16) run(BFloat16{});
      if (precision == Precision::kHalf) run(Half{});
    } else {
      const auto offsets = step_offsets(checked, batch_sizes, gates, stream);
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

// For Python: whether float32 layers may use tf32 from here on.
extern "C" __attribute__((visibility("default"))) void textclf_fast_cuda_allow_tf32(int allowed) {
  textclf_fast::cuda::allow_tf32 = allowed != 0;
}

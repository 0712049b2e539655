#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <atomic>
#include <vector>

#include "lstm_offsets.h"
#include "lstm_tensors.h"

namespace textclf_fast::cuda {
namespace {

// Asks PyTorch's switch. The stable ABI has no word for it, so Python lends a function; a value that Python would set
// before a call would be out of date in compiled graphs, which call the ops without any Python of ours.
std::atomic<int (*)()> tf32_is_allowed{nullptr};

}  // namespace

cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

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

Precision precision_of(const Tensor& w_hh) {
  switch (w_hh.scalar_type()) {
    case ScalarType::Double:
      return Precision::kFloat64;
    case ScalarType::BFloat16:
      return Precision::kBFloat16;
    case ScalarType::Half:
      return Precision::kHalf;
    default: {
      int (*const ask)() = tf32_is_allowed;
      return ask && ask() ? Precision::kTf32 : Precision::kFloat32;
    }
  }
}

Tensor copy(const Tensor& source, cudaStream_t stream) {
  const Tensor source_c = dense(source);
  Tensor result = torch::stable::new_empty(source_c, source_c.sizes());
  STD_CUDA_CHECK(cudaMemcpyAsync(result.mutable_data_ptr(), source_c.const_data_ptr(),
                                 source_c.numel() * source_c.element_size(), cudaMemcpyDeviceToDevice, stream));
  return result;
}

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
  check_index(index, gates, "gates", gate_rows, positions);
  checked.batch_sizes = dense(batch_sizes);
  checked.shape.steps = steps;
  checked.shape.positions = positions;
  checked.shape.gate_rows = gate_rows;
  checked.shape.batch_sizes = nullptr;
  checked.shape.offsets = nullptr;
  return checked;
}

std::optional<Tensor> step_offsets(const CheckedShape& checked, const Tensor& gates, cudaStream_t stream) {
  const LstmShape& shape = checked.shape;
  const bool on_device = checked.batch_sizes.is_cuda();
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

Tensor grid_memory(int64_t teams, int64_t bytes, bool zero, const Tensor& like, cudaStream_t stream,
                   GridWorkspace* workspace) {
  const int64_t counters = teams * int64_t(sizeof(uint32_t)), begin = zero ? 0 : bytes;
  const Tensor memory = torch::stable::new_empty(like, {bytes + counters}, ScalarType::Byte);
  auto* at = pointer_to_write<unsigned char>(memory);
  STD_CUDA_CHECK(cudaMemsetAsync(at + begin, 0, size_t(bytes + counters - begin), stream));
  *workspace = {reinterpret_cast<uint32_t*>(at + bytes), at};
  return memory;
}

}  // namespace textclf_fast::cuda

// For Python: the function to ask whether float32 may be rounded to tf32, from any thread; null: it may not.
extern "C" __attribute__((visibility("default"))) void textclf_fast_cuda_ask_tf32(int (*ask)()) {
  textclf_fast::cuda::tf32_is_allowed = ask;
}

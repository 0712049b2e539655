// What the ops on CUDA tensors share: checks, the GPU and its stream, the precision, where steps begin. Nothing here
// waits for the GPU.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "../tensor_checks.h"
#include "lstm_plan.h"
#include "teams.h"

namespace textclf_fast::cuda {

template <class T>
const T* pointer(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* pointer_to_write(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}
// Null where there is none.
template <class T>
const T* pointer(const std::optional<Tensor>& t) {
  return t ? pointer<T>(*t) : nullptr;
}
template <class T>
T* pointer_to_write(const std::optional<Tensor>& t) {
  return t ? pointer_to_write<T>(*t) : nullptr;
}

cudaStream_t current_stream(int32_t device);

// Asked for once a device.
const DeviceLimits& limits_of(int32_t device);

// Of a layer with these weights. float32 ones may be rounded to tf32 where PyTorch's switch for cuDNN's RNNs says so,
// as in nn.LSTM; where nobody can ask PyTorch (no Python), they are not.
Precision precision_of(const Tensor& w_hh);

// A new tensor with the same values, out of autograd's sight.
Tensor copy(const Tensor& source, cudaStream_t stream);

// check_layer, but for batch sizes on the device, which nobody has seen: T and N come from the other tensors' shapes,
// and N may be more than the batch sizes add up to.
CheckedShape check_cuda_layer(const Tensor& gates, const std::optional<Tensor>& index, const Tensor& batch_sizes,
                              const Tensor& w_hh, const Tensor& h0, const Tensor& c0);

// Where steps begin, (T + 1) int32 on the device: nothing where all rows are of one length.
std::optional<Tensor> step_offsets(const CheckedShape& checked, const Tensor& gates, cudaStream_t stream);

// What the teams of a grid need in global memory: so many bytes that go round, zero where asked for, then their
// counters. On the device of `like`; to be kept until the launch.
Tensor grid_memory(int64_t teams, int64_t bytes, bool zero, const Tensor& like, cudaStream_t stream,
                   GridWorkspace* workspace);

}  // namespace textclf_fast::cuda

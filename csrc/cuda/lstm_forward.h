// One layer forward on CUDA tensors, for the ops of inference and of training.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>

namespace textclf_fast::cuda {

using torch::stable::Tensor;

// What is wanted beside h_n and c_n.
struct Wanted {
  bool output = false, activations = false, cells = false;
};

// Shapes as in ../ops.cpp.
struct ForwardResults {
  Tensor h_n, c_n;
  std::optional<Tensor> output, activations, cells;  // those that were wanted
};

// Checks the arguments (those of lstm_inference in ../ops.cpp), allocates the results, and launches what the plan says
// on the current stream, without waiting for the GPU.
ForwardResults forward_layer(const Tensor& gates, const std::optional<Tensor>& index, const Tensor& batch_sizes,
                             const Tensor& w_hh, const Tensor& h0, const Tensor& c0, const Wanted& wanted);

}  // namespace textclf_fast::cuda

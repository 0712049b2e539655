// One layer backward on CUDA tensors, for the op of training.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>

namespace textclf_fast::cuda {

using torch::stable::Tensor;

// Of what the forward gave out; none: zero, and nothing is read.
struct GivenGradients {
  std::optional<Tensor> grad_output, grad_h_n, grad_c_n, grad_cells;
};

// Shapes as in ../ops.cpp.
struct Gradients {
  Tensor gates, w_hh, h0, c0;
};

// Checks the arguments (those of lstm_backward in ../ops.cpp), allocates the results, and launches what the plan says
// on the current stream, without waiting for the GPU.
Gradients backward_layer(const GivenGradients& given, const Tensor& activations, const Tensor& cells,
                         const Tensor& output, const std::optional<Tensor>& index, int64_t gate_rows,
                         const Tensor& batch_sizes, const Tensor& w_hh, const Tensor& h0, const Tensor& c0,
                         bool need_w_hh, bool need_gates);

}  // namespace textclf_fast::cuda

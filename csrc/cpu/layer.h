// A layer whose input the kernels project, on checked tensors: what the ops that do so share.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "../lstm_problem.h"
#include "tensors.h"

namespace textclf_fast::cpu {

using Maybe = std::optional<Tensor>;

// All contiguous, of the dtype of x; bias of that of the gates.
struct Layer {
  LstmShape shape;
  Tensor x, w_ih, w_hh;  // (R, I), (D, 4H, I), (D, 4H, H)
  Maybe bias;            // (D, 4H)
  Tensor h0, c0;         // (D, B, H)
  Maybe index;           // (N)
  // Weights and their gradients have no dimension of directions, of which there is one.
  bool flat = false;
  // The shape of output where it is not (N, D * H), and where in it, flattened, positions are: null: one after the
  // other.
  std::vector<int64_t> output_shape = {};
  const int64_t* place = nullptr;  // (N); in the backward, of the output's gradient alone
};

struct LayerResults {
  Tensor output, h_n, c_n;
  Maybe activations, cells;  // in training
  Maybe packed_output = {};  // (N, D * H), in training beside `place`: the caller may change the output
};
// panels: what pack_recurrent made of the weights, or none.
LayerResults run_layer(const Layer& layer, const Maybe& panels, bool need_output, bool trains);

// What a backward is given, contiguous.
struct LayerGradientsGiven {
  Maybe output, h_n, c_n;  // (N, D * H), (D, B, H), (D, B, H); none: zero
};
struct LayerSaved {
  Tensor activations, cells, output;  // (D, N, 4H), (D, N, H), (N, D * H)
};
// Throws where one does not fit the shape or `like`.  output_shape, and that of its gradient: other than (N, D * H).
std::pair<LayerGradientsGiven, LayerSaved> check_for_backward(const LstmShape& shape, const Tensor& like,
                                                              const char* name, const LayerGradientsGiven& grads,
                                                              const LayerSaved& saved,
                                                              std::vector<int64_t> output_shape = {},
                                                              std::vector<int64_t> grad_shape = {});

struct LayerNeeds {
  bool x, w_ih, w_hh, bias, states;
};
struct LayerGradients {
  Tensor x, w_ih, w_hh, bias, h0, c0;  // empty where not needed; of bfloat16, w_ih and w_hh in float
};
LayerGradients run_layer_backward(const Layer& layer, const LayerGradientsGiven& grads, const LayerSaved& saved,
                                  const LayerNeeds& needs);

}  // namespace textclf_fast::cpu

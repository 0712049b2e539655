#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "lstm_backward.h"
#include "lstm_backward_stepwise.h"
#include "lstm_gradients.h"
#include "lstm_tensors.h"
#include "previous_h.h"
#include "token_sums.h"

namespace textclf_fast::cuda {
namespace {

// The layer's tensors, contiguous, and what is made of them: gates' gradients are in the layer's own numbers here, as
// they are multiplied, for the GEMM and the sums that follow.
struct Layer {
  const LstmShape& shape;
  GivenGradients given;
  Tensor activations, cells, output, w_hh, h0, c0;
  std::optional<Tensor> index, offsets;
  std::optional<Tensor>
      grad_gates;  // none where nobody asks: not for the GEMM of a step, of W_hh's gradient, or the sums
  Tensor grad_h0, grad_c0;
};

template <class Product>
void run_persistent(const BackwardPlan& plan, const Layer& in, cudaStream_t stream) {
  using Number = typename Product::Number;
  const LstmShape& shape = in.shape;
  PersistentBackward<Number> backward{};
  backward.steps = int(shape.steps);
  backward.hidden = int(shape.hidden);
  backward.rows = int(shape.rows);
  backward.positions = int(shape.positions);
  backward.offsets = pointer<int32_t>(in.offsets);
  backward.w_hh = pointer<Number>(in.w_hh);
  backward.activations = pointer<Number>(in.activations);
  backward.cells = pointer<Number>(in.cells);
  backward.c0 = pointer<Number>(in.c0);
  backward.grad_output = pointer<Number>(in.given.grad_output);
  backward.grad_h_n = pointer<Number>(in.given.grad_h_n);
  backward.grad_c_n = pointer<Number>(in.given.grad_c_n);
  backward.grad_cells = pointer<Number>(in.given.grad_cells);
  backward.grad_gates = pointer_to_write<Number>(in.grad_gates);
  backward.grad_h0 = pointer_to_write<Number>(in.grad_h0);
  backward.grad_c0 = pointer_to_write<Number>(in.grad_c0);

  std::optional<Tensor> memory;
  if (plan.family == Family::kGrid) {
    const int64_t teams = plan.slices * shape.directions, sums = 2 * teams * plan.tiles.team * plan.tiles.sums_bytes();
    memory = grid_memory(teams, sums, false, in.w_hh, stream, &backward.workspace);
  }
  STD_CUDA_CHECK(launch_backward<Product>(plan, backward, int(shape.directions), stream));
}

// Incoming gradients in the type that is computed with, or zeros: a step overwrites the rows that are alive.
Tensor states_to_overwrite(const std::optional<Tensor>& given, const Tensor& like, ScalarType type,
                           cudaStream_t stream) {
  if (!given) return torch::stable::new_zeros(like, like.sizes(), type);
  return given->scalar_type() == type ? copy(*given, stream) : torch::stable::to(*given, type);
}

// A kernel and a GEMM a step. The GEMM is PyTorch's own, as in the forward.
template <class Number>
void run_stepwise(const Layer& in, cudaStream_t stream) {
  using Value = StepValue<Number>;
  constexpr bool kNarrow = sizeof(Number) != sizeof(Value);
  const LstmShape& shape = in.shape;
  const ScalarType type = kNarrow ? ScalarType::Float : in.w_hh.scalar_type();
  const Tensor grad_h = states_to_overwrite(in.given.grad_h_n, in.h0, type, stream);
  const Tensor grad_c = states_to_overwrite(in.given.grad_c_n, in.c0, type, stream);
  const auto multiply = [&](int64_t d, int64_t at, int64_t rows) {
    Tensor all = torch::stable::select(*in.grad_gates, 0, d), states = torch::stable::select(grad_h, 0, d);
    const Tensor gates = torch::stable::narrow(all, 0, at, rows), h = torch::stable::narrow(states, 0, 0, rows);
    const Tensor w = torch::stable::select(in.w_hh, 0, d);  // (4H, H)
    STABLE_TORCH_ERROR_CODE_CHECK(
        kNarrow ? aoti_torch_cuda_mm_dtype_out(h.get(), gates.get(), w.get(), aoti_torch_dtype_float32())
                : aoti_torch_cuda_mm_out(h.get(), gates.get(), w.get()));
  };
  STD_CUDA_CHECK(backward_stepwise<Number>({.shape = shape,
                                            .activations = pointer<Number>(in.activations),
                                            .cells = pointer<Number>(in.cells),
                                            .c0 = pointer<Number>(in.c0),
                                            .grad_output = pointer<Number>(in.given.grad_output),
                                            .grad_cells = pointer<Number>(in.given.grad_cells),
                                            .grad_gates = pointer_to_write<Number>(in.grad_gates),
                                            .grad_h = pointer_to_write<Value>(grad_h),
                                            .grad_c = pointer_to_write<Value>(grad_c)},
                                           multiply, stream));
  Tensor grad_h0 = in.grad_h0, grad_c0 = in.grad_c0;
  torch::stable::copy_(grad_h0, grad_h);
  torch::stable::copy_(grad_c0, grad_c);
}

// One GEMM over all positions: (D, 4H, N) by (D, N, H), of each position's gates and the h that they were computed
// from.
template <class Word>
Tensor sum_w_hh(const Layer& in, cudaStream_t stream) {
  const LstmShape& shape = in.shape;
  const Tensor previous = torch::stable::new_empty(in.w_hh, {shape.directions, shape.positions, shape.hidden});
  STD_CUDA_CHECK(launch_previous_h<Word>({.offsets = pointer<int32_t>(in.offsets),
                                          .output = pointer<Word>(in.output),
                                          .h0 = pointer<Word>(in.h0),
                                          .previous = pointer_to_write<Word>(previous),
                                          .steps = int(shape.steps),
                                          .hidden = int(shape.hidden),
                                          .rows = int(shape.rows),
                                          .positions = int(shape.positions)},
                                         int(shape.directions), stream));
  const Tensor grad_w_hh = torch::stable::new_empty(in.w_hh, in.w_hh.sizes());
  const Tensor gates = torch::stable::transpose(*in.grad_gates, 1, 2);
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cuda_bmm_out(grad_w_hh.get(), gates.get(), previous.get()));
  return grad_w_hh;
}

// The gradient of a table from those of the positions that read it.
template <class Number>
Tensor sum_tokens(const Layer& in, ScalarType type, cudaStream_t stream) {
  using Value = StepValue<Number>;
  const LstmShape& shape = in.shape;
  int32_t stable = 1;
  AtenTensorHandle sorted = nullptr, places = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cuda_sort_stable(in.index->get(), &stable, 0, 0, &sorted, &places));
  const Tensor tokens(sorted), order(places);
  const int64_t width = 4 * shape.hidden;
  const Tensor sums = torch::stable::new_zeros(*in.grad_gates, {shape.directions, shape.gate_rows, width}, type);
  TokenSums<Number> p{.tokens = pointer<int64_t>(tokens),
                      .order = pointer<int64_t>(order),
                      .values = pointer<Number>(in.grad_gates),
                      .sums = pointer_to_write<Value>(sums),
                      .carries = nullptr,
                      .positions = shape.positions,
                      .rows = shape.gate_rows,
                      .width = width};
  const Tensor carries = torch::stable::new_empty(sums, {shape.directions, p.pieces(), width});
  p.carries = pointer_to_write<Value>(carries);
  STD_CUDA_CHECK(launch_token_sums(p, int(shape.directions), stream));
  return sums;
}

std::optional<Tensor> checked_gradient(const std::optional<Tensor>& gradient, const char* name,
                                       const std::vector<int64_t>& shape, const Tensor& activations) {
  if (gradient) {
    check_shape(*gradient, name, shape);
    check_like(*gradient, name, activations, "activations");
  }
  return dense(gradient);
}

}  // namespace

Gradients backward_layer(const GivenGradients& given, const Tensor& activations, const Tensor& cells,
                         const Tensor& output, const std::optional<Tensor>& index, int64_t gate_rows,
                         const Tensor& batch_sizes, const Tensor& w_hh, const Tensor& h0, const Tensor& c0,
                         bool need_w_hh, bool need_gates) {
  STD_TORCH_CHECK(gate_rows >= 0, "gate_rows: expected at least 0, got ", gate_rows);
  STD_TORCH_CHECK(activations.is_cuda(), "activations: expected a CUDA tensor, as the others are");
  CheckedShape checked = check_cuda_layer(activations, index, batch_sizes, w_hh, h0, c0);
  LstmShape& shape = checked.shape;
  const int64_t positions = shape.positions, directions = shape.directions, hidden = shape.hidden;
  check_like(w_hh, "w_hh", activations, "activations");
  check_shape(activations, "activations", {directions, positions, 4 * hidden});
  check_shape(cells, "cells", {directions, positions, hidden});
  check_shape(output, "output", {positions, directions * hidden});
  check_like(cells, "cells", activations, "activations");
  check_like(output, "output", activations, "activations");
  STD_TORCH_CHECK(index || gate_rows == positions, "gate_rows: expected the ", positions,
                  " positions of batch_sizes without an index, got ", gate_rows);
  STD_TORCH_CHECK(positions <= 0x7fffffff, "batch_sizes: ", positions, " positions, expected fewer than 2^31");
  shape.gate_rows = gate_rows;

  const int32_t device = activations.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const cudaStream_t stream = current_stream(device);
  const Precision precision = precision_of(w_hh);
  const BackwardPlan plan =
      plan_backward({shape.rows, hidden, directions, shape.steps, positions, gate_rows}, precision, limits_of(device));
  const bool stepwise = plan.family == Family::kStepwise;
  STD_TORCH_CHECK(!stepwise || !batch_sizes.is_cuda(), "batch_sizes: expected a tensor on the CPU, as ", plan.reason,
                  " and each step is a launch of its own");

  // Gates' gradients are given out in the type of the gates.
  const ScalarType type = precision == Precision::kFloat64 ? ScalarType::Double : ScalarType::Float;
  if (shape.rows == 0)
    return {need_gates ? torch::stable::new_zeros(activations, {directions, gate_rows, 4 * hidden}, type)
                       : torch::stable::new_empty(activations, {0}, type),
            torch::stable::new_zeros(w_hh, need_w_hh ? w_hh.sizes() : torch::headeronly::IntHeaderOnlyArrayRef({0})),
            torch::stable::new_empty(h0, h0.sizes()), torch::stable::new_empty(c0, c0.sizes())};

  const auto gradient = [&](const std::optional<Tensor>& g, const char* name, const std::vector<int64_t>& size) {
    return checked_gradient(g, name, size, activations);
  };
  Layer layer{shape,
              {gradient(given.grad_output, "grad_output", {positions, directions * hidden}),
               gradient(given.grad_h_n, "grad_h_n", {directions, shape.rows, hidden}),
               gradient(given.grad_c_n, "grad_c_n", {directions, shape.rows, hidden}),
               gradient(given.grad_cells, "grad_cells", {directions, positions, hidden})},
              dense(activations),
              dense(cells),
              dense(output),
              dense(w_hh),
              dense(h0),
              dense(c0),
              dense(index),
              stepwise && !need_w_hh ? std::nullopt : step_offsets(checked, activations, stream),
              need_gates || need_w_hh || stepwise
                  ? std::optional(torch::stable::new_empty(activations, activations.sizes()))
                  : std::nullopt,
              torch::stable::new_empty(h0, h0.sizes()),
              torch::stable::new_empty(c0, c0.sizes())};
  // Batch sizes that nobody has seen may add up to less than N.
  if (batch_sizes.is_cuda() && layer.grad_gates) torch::stable::zero_(*layer.grad_gates);

  const auto with_number = [&](auto run) {
    switch (precision) {
      case Precision::kFloat64:
        return run(double{});
      case Precision::kBFloat16:
        return run(BFloat16{});
      case Precision::kHalf:
        return run(Half{});
      default:
        return run(float{});
    }
  };
  if (stepwise) {
    with_number([&](auto number) { run_stepwise<decltype(number)>(layer, stream); });
  } else {
    if (precision == Precision::kFloat32) run_persistent<Float32Product>(plan, layer, stream);
    if (precision == Precision::kTf32) run_persistent<Tf32Product>(plan, layer, stream);
    if (precision == Precision::kBFloat16) run_persistent<BFloat16Product>(plan, layer, stream);
    if (precision == Precision::kHalf) run_persistent<HalfProduct>(plan, layer, stream);
  }

  const auto sum_weights = [&] {
    if (!need_w_hh) return torch::stable::new_empty(w_hh, {0});
    if (precision == Precision::kFloat64) return sum_w_hh<uint64_t>(layer, stream);
    return number_bytes(precision) == 4 ? sum_w_hh<uint32_t>(layer, stream) : sum_w_hh<uint16_t>(layer, stream);
  };
  const auto sum_gates = [&] {
    if (!need_gates) return torch::stable::new_empty(activations, {0}, type);
    if (!index) return torch::stable::to(*layer.grad_gates, type);  // the very tensor where that is its type
    return with_number([&](auto number) { return sum_tokens<decltype(number)>(layer, type, stream); });
  };
  const Tensor grad_w_hh = sum_weights();
  return {sum_gates(), grad_w_hh, layer.grad_h0, layer.grad_c0};
}

}  // namespace textclf_fast::cuda

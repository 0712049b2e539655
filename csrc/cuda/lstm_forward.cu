#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "lstm_forward.h"
#include "lstm_persistent.h"
#include "lstm_stepwise.h"
#include "lstm_tensors.h"

namespace textclf_fast::cuda {
namespace {

// The layer's tensors, contiguous.
struct Inputs {
  const LstmShape& shape;
  Tensor gates;
  std::optional<Tensor> index;
  Tensor w_hh, h0, c0;
};

template <class Product>
void run_persistent(const Plan& plan, const Inputs& in, const std::optional<Tensor>& offsets,
                    const ForwardResults& results, cudaStream_t stream) {
  using Number = typename Product::Number;
  const LstmShape& shape = in.shape;
  PersistentForward<Number> forward{};
  forward.steps = int(shape.steps);
  forward.hidden = int(shape.hidden);
  forward.rows = int(shape.rows);
  forward.positions = int(shape.positions);
  forward.gate_rows = shape.gate_rows;
  forward.offsets = pointer<int32_t>(offsets);
  forward.gates = pointer<float>(in.gates);
  forward.index = pointer<int64_t>(in.index);
  forward.w_hh = pointer<Number>(in.w_hh);
  forward.h0 = pointer<Number>(in.h0);
  forward.c0 = pointer<Number>(in.c0);
  forward.output = pointer_to_write<Number>(results.output);
  forward.h_n = pointer_to_write<Number>(results.h_n);
  forward.c_n = pointer_to_write<Number>(results.c_n);
  forward.activations = pointer_to_write<Number>(results.activations);
  forward.cells = pointer_to_write<Number>(results.cells);

  std::optional<Tensor> memory;
  if (plan.family == Family::kGrid) {
    const int64_t teams = plan.slices * shape.directions;
    memory = grid_memory(teams, teams * 2 * plan.tiles.image_bytes(), true, in.gates, stream, &forward.workspace);
  }
  STD_CUDA_CHECK(launch_persistent<Product>(plan, forward, int(shape.directions), stream));
}

// The first rows of a matrix, a view.
Tensor first_rows(Tensor matrix, int64_t rows) { return torch::stable::narrow(matrix, 0, 0, rows); }

// A GEMM and a kernel a step. The GEMM is PyTorch's own, so that its precision switches for matmul apply; not through
// the dispatcher, where autocast or autograd would step in. Of 16-bit numbers its result is float32.
template <class Number>
void run_stepwise(const Inputs& in, const ForwardResults& results, cudaStream_t stream) {
  using Value = StepValue<Number>;
  const LstmShape& shape = in.shape;
  const Tensor recurrent = torch::stable::new_empty(in.gates, {shape.rows, 4 * shape.hidden});
  const Tensor c = torch::stable::to(results.c_n, in.gates.scalar_type());  // the very tensor where that is its type
  const auto multiply = [&](int64_t d, int64_t rows) {
    const Tensor product = first_rows(recurrent, rows), h = first_rows(torch::stable::select(results.h_n, 0, d), rows);
    const Tensor w = torch::stable::transpose(torch::stable::select(in.w_hh, 0, d), 0, 1);  // (H, 4H)
    STABLE_TORCH_ERROR_CODE_CHECK(
        sizeof(Number) == sizeof(Value)
            ? aoti_torch_cuda_mm_out(product.get(), h.get(), w.get())
            : aoti_torch_cuda_mm_dtype_out(product.get(), h.get(), w.get(), aoti_torch_dtype_float32()));
  };
  STD_CUDA_CHECK(forward_stepwise<Number>({.shape = shape,
                                           .gates = pointer<Value>(in.gates),
                                           .index = pointer<int64_t>(in.index),
                                           .recurrent = pointer<Value>(recurrent),
                                           .h = pointer_to_write<Number>(results.h_n),
                                           .c = pointer_to_write<Value>(c),
                                           .output = pointer_to_write<Number>(results.output),
                                           .activations = pointer_to_write<Number>(results.activations),
                                           .cells = pointer_to_write<Number>(results.cells)},
                                          multiply, stream));
  if (sizeof(Number) != sizeof(Value)) {
    Tensor c_n = results.c_n;
    torch::stable::copy_(c_n, c);
  }
}

}  // namespace

ForwardResults forward_layer(const Tensor& gates, const std::optional<Tensor>& index, const Tensor& batch_sizes,
                             const Tensor& w_hh, const Tensor& h0, const Tensor& c0, const Wanted& wanted) {
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

  const auto made = [&](bool needed, std::initializer_list<int64_t> size) {
    return needed ? std::optional(torch::stable::new_empty(w_hh, size)) : std::nullopt;
  };
  const int64_t positions = shape.positions, directions = shape.directions, hidden = shape.hidden;
  // A step of the stepwise family overwrites the states of the rows that are alive.
  ForwardResults results{stepwise ? copy(h0, stream) : torch::stable::new_empty(h0, h0.sizes()),
                         stepwise ? copy(c0, stream) : torch::stable::new_empty(c0, c0.sizes()),
                         made(wanted.output, {positions, directions * hidden}),
                         made(wanted.activations, {directions, positions, 4 * hidden}),
                         made(wanted.cells, {directions, positions, hidden})};
  if (shape.rows == 0) return results;
  const Inputs in{shape, dense(gates), dense(index), dense(w_hh), dense(h0), dense(c0)};
  if (stepwise) {
    const auto run = [&](auto number) { run_stepwise<decltype(number)>(in, results, stream); };
    if (precision == Precision::kFloat64) run(double{});
    if (precision == Precision::kFloat32 || precision == Precision::kTf32) run(float{});
    if (precision == Precision::kBFloat16) run(BFloat16{});
    if (precision == Precision::kHalf) run(Half{});
  } else {
    const auto offsets = step_offsets(checked, gates, stream);
    const auto run = [&](auto product) { run_persistent<decltype(product)>(plan, in, offsets, results, stream); };
    if (precision == Precision::kFloat32) run(Float32Product{});
    if (precision == Precision::kTf32) run(Tf32Product{});
    if (precision == Precision::kBFloat16) run(BFloat16Product{});
    if (precision == Precision::kHalf) run(HalfProduct{});
  }
  return results;
}

}  // namespace textclf_fast::cuda

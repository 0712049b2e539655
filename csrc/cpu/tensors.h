// What the CPU ops share: typed pointers of tensors, allocation, dispatch on the dtype.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "../tensor_checks.h"
#include "kernels.h"
#include "launch.h"
#include "memory.h"

namespace textclf_fast::cpu {

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
const T* data(const std::optional<Tensor>& t) {
  return t ? data<T>(*t) : nullptr;
}
template <class T>
T* mutable_data(Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

// On the CPU. (Not by way of the operator, as in dense().)
inline Tensor uninitialized(const std::vector<int64_t>& shape, ScalarType dtype) {
  std::vector<int64_t> strides(shape.size());
  int64_t count = 1;
  for (size_t d = shape.size(); d-- > 0; count *= std::max<int64_t>(shape[d], 1)) strides[d] = count;
  const auto number = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(shape.size()), shape.data(), strides.data(), number,
                                                         aoti_torch_device_type_cpu(), 0, &handle));
  Tensor t(handle);
  poison(t.mutable_data_ptr(), size_t(t.numel()) * t.element_size());
  return t;
}
inline Tensor uninitialized(const Tensor& like, const std::vector<int64_t>& shape) {
  return uninitialized(shape, like.scalar_type());
}

// On the CPU, of the dtype of `like` unless another is given; uninitialized; in kept memory where it is large (and so
// its storage cannot grow).  For what lives for a training step:
inline Tensor new_passing(const Tensor& like, const std::vector<int64_t>& shape, ScalarType dtype,
                          BlockFit fit = BlockFit::kLoose) {
  constexpr int64_t kLarge = int64_t(1) << 20;
  int64_t count = 1;
  std::vector<int64_t> strides(shape.size());
  for (size_t d = shape.size(); d-- > 0; count *= shape[d]) strides[d] = count;
  const int64_t bytes = count * (dtype == ScalarType::BFloat16 ? 2 : dtype == ScalarType::Float ? 4 : 8);
  if (bytes < kLarge) return uninitialized(shape, dtype);
  return torch::stable::from_blob(take_block(size_t(bytes), fit), shape, strides, like.device(), dtype,
                                  give_back_block);
}
inline Tensor new_passing(const Tensor& like, const std::vector<int64_t>& shape) {
  return new_passing(like, shape, like.scalar_type());
}
// For the caller, who may keep it.
inline Tensor new_output(const Tensor& like, const std::vector<int64_t>& shape) {
  return new_passing(like, shape, like.scalar_type(), BlockFit::kTight);
}

// Calls f(T{}) with the C++ type of the tensor.
template <class F>
void dispatch(const Tensor& t, const char* name, const F& f) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return f(float{});
    case ScalarType::Double:
      return f(double{});
    case ScalarType::BFloat16:
      return f(BFloat16{});
    default:
      STD_TORCH_CHECK(false, name, ": expected dtype float32, float64 or bfloat16");
  }
}

constexpr auto kFloat = ScalarType::Float, kBFloat16 = ScalarType::BFloat16;

// Whether a layer of bfloat16 has to be computed as one of float: sets that do not multiply bfloat16 store it and no
// more; and pairs of numbers of h, of units where those are projected, of x where that is, want an even number of them.
inline bool computes_as_float(const Tensor& w_hh, const std::optional<Tensor>& w_hr = std::nullopt,
                              const std::optional<Tensor>& w_ih = std::nullopt) {
  const auto is_odd = [](const std::optional<Tensor>& w) { return w && w->size(w->dim() - 1) % 2 != 0; };
  return w_hh.scalar_type() == ScalarType::BFloat16 &&
         (!has_bfloat16() || is_odd(w_hh) || is_odd(w_hr) || is_odd(w_ih));
}
inline Tensor as(ScalarType dtype, const Tensor& t) { return torch::stable::to(t, dtype); }
inline std::optional<Tensor> as(ScalarType dtype, const std::optional<Tensor>& t) {
  return t ? std::optional<Tensor>(as(dtype, *t)) : std::nullopt;
}

// Gates, or a table of them, beside this W_hh: of its dtype, but float32 for bfloat16.
inline void check_gates_dtype(const Tensor& gates, const char* name, const Tensor& w_hh) {
  if (w_hh.scalar_type() != ScalarType::BFloat16) return check_like(w_hh, "w_hh", gates, name);
  STD_TORCH_CHECK(gates.scalar_type() == ScalarType::Float, name, ": expected dtype float32 beside a bfloat16 w_hh");
  check_device(w_hh, "w_hh", gates, name);
}

template <class T>
void check_panels(const Tensor& panels, const Tensor& like, int64_t directions, const WeightSizes& sizes) {
  check_like(panels, "panels", like);
  check_shape(panels, "panels", {panels_size<T>(directions, sizes)});
  STD_TORCH_CHECK(panels.is_contiguous(), "panels: expected a contiguous tensor");
}

}  // namespace textclf_fast::cpu

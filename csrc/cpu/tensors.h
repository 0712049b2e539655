// What the CPU ops share: typed pointers of tensors, allocation, dispatch on the dtype.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <optional>
#include <vector>

#include "../tensor_checks.h"
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

inline std::optional<Tensor> contiguous(const std::optional<Tensor>& t) {
  return t ? std::optional<Tensor>(torch::stable::contiguous(*t)) : std::nullopt;
}

// Uninitialized, of the dtype and on the device of `like`.
inline Tensor new_large(const Tensor& like, const std::vector<int64_t>& shape) {
  Tensor t = torch::stable::new_empty(like, shape);
  advise_huge_pages(t.mutable_data_ptr(), size_t(t.numel()) * t.element_size());
  return t;
}

// Calls f(T{}) with the C++ type of the tensor.
template <class F>
void dispatch(const Tensor& t, const char* name, const F& f) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float || t.scalar_type() == ScalarType::Double, name,
                  ": expected dtype float32 or float64");
  if (t.scalar_type() == ScalarType::Float)
    f(float{});
  else
    f(double{});
}

template <class T>
void check_panels(const Tensor& panels, const Tensor& like, int64_t directions, int64_t hidden) {
  check_like(panels, "panels", like);
  check_shape(panels, "panels", {panels_size<T>(directions, hidden)});
  STD_TORCH_CHECK(panels.is_contiguous(), "panels: expected a contiguous tensor");
}

}  // namespace textclf_fast::cpu

// The stepwise kernels' numbers on the host, where a GPU's own conversions are not to be had.
#pragma once

#include <type_traits>

#include "cuda/lstm_step.h"
#include "emulator/numbers.h"

namespace emulator {

using textclf_fast::BFloat16;
using textclf_fast::cuda::Half;
using textclf_fast::cuda::StepValue;

template <class Number>
StepValue<Number> value(Number x) {
  if constexpr (std::is_same_v<Number, BFloat16>) return bf16_value(x.bits);
  if constexpr (std::is_same_v<Number, Half>) return half_value(x.bits);
  if constexpr (std::is_floating_point_v<Number>) return x;
}
template <class Number>
Number number(StepValue<Number> x) {
  if constexpr (std::is_same_v<Number, BFloat16>) return {bf16_bits(x)};
  if constexpr (std::is_same_v<Number, Half>) return {half_bits(x)};
  if constexpr (std::is_floating_point_v<Number>) return x;
}

}  // namespace emulator

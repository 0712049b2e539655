// AVX2 with FMA: 32-byte vectors.
#include <sched.h>

#include "kernels.h"

#ifdef __x86_64__
#include "target.h"

TEXTCLF_TARGET_BEGIN("avx2,fma")

namespace textclf_fast::cpu::avx2 {
namespace {

constexpr int kVectorBytes = 32;
// 16 registers: 2 * 4 accumulators + 4 of W + 1 broadcast = 13.
constexpr int kTileRows = 2;

#include "lstm_kernels.inl"

}  // namespace

template <>
KernelTable<float> kernels<float>() {
  return kernel_table<float>();
}
template <>
KernelTable<double> kernels<double>() {
  return kernel_table<double>();
}

}  // namespace textclf_fast::cpu::avx2

TEXTCLF_TARGET_END
#endif

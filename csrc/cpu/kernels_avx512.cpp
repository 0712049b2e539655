// AVX-512 (F, DQ, VL, BW): 64-byte vectors.
#include <immintrin.h>
#include <sched.h>

#include "int8_kernels.h"
#include "kernels.h"

#ifdef __x86_64__
#include "target.h"

TEXTCLF_TARGET_BEGIN("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")

namespace textclf_fast::cpu::avx512 {
namespace {

constexpr int kVectorBytes = 64;
// 32 registers: 6 * 4 accumulators + 4 of W + 1 broadcast = 29.
constexpr int kTileRows = 6, kTileVectors = 4;

#include "intrinsics_avx512.inl"
#include "lstm_int8.inl"
#include "lstm_kernels.inl"

}  // namespace
}  // namespace textclf_fast::cpu::avx512

TEXTCLF_TARGET_END

// Every machine calls these, whatever it has.
namespace textclf_fast::cpu::avx512 {

template <>
const KernelTable<float>& kernels<float>() {
  static constexpr auto table = kernel_table<float>();
  return table;
}
template <>
const KernelTable<double>& kernels<double>() {
  static constexpr auto table = kernel_table<double>();
  return table;
}
const Int8Kernels& int8_kernels() {
  static constexpr Int8Kernels table{"avx512", int8_scratch_bytes, int8_forward};
  return table;
}

}  // namespace textclf_fast::cpu::avx512
#endif

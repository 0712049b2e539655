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
constexpr int kTileRows = 6;

// (The forms with a mask, all set: gcc 12 warns of an uninitialized operand in the plain ones.)
static inline __attribute__((always_inline)) __m512 minimum(__m512 a, __m512 b) {
  return _mm512_maskz_min_ps(-1, a, b);
}
static inline __attribute__((always_inline)) __m512d minimum(__m512d a, __m512d b) {
  return _mm512_maskz_min_pd(-1, a, b);
}
static inline __attribute__((always_inline)) __m512 maximum(__m512 a, __m512 b) {
  return _mm512_maskz_max_ps(-1, a, b);
}
static inline __attribute__((always_inline)) __m512d maximum(__m512d a, __m512d b) {
  return _mm512_maskz_max_pd(-1, a, b);
}
// 14 bits, and a step of Newton's method: 28.  A division takes 10 cycles on Zen 4, this 3.
static inline __attribute__((always_inline)) __m512 reciprocal(__m512 x) {
  const __m512 y = _mm512_maskz_rcp14_ps(-1, x);
  return _mm512_fmadd_ps(y, _mm512_fnmadd_ps(x, y, _mm512_set1_ps(1)), y);
}

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
Int8Kernels int8_kernels() { return {"avx512", int8_scratch_size, int8_forward}; }

}  // namespace textclf_fast::cpu::avx512

TEXTCLF_TARGET_END
#endif

// AVX2 with FMA: 32-byte vectors.
#include <immintrin.h>
#include <sched.h>

#include "int8_kernels.h"
#include "kernels.h"

#ifdef __x86_64__
#include "target.h"

TEXTCLF_TARGET_BEGIN("avx2,fma")

namespace textclf_fast::cpu::avx2 {
namespace {

constexpr int kVectorBytes = 32;
// 16 registers: 6 * 2 accumulators + 2 of W + 1 broadcast = 15.
constexpr int kTileRows = 6, kTileVectors = 2;

static inline __attribute__((always_inline)) __m256 minimum(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
static inline __attribute__((always_inline)) __m256d minimum(__m256d a, __m256d b) { return _mm256_min_pd(a, b); }
static inline __attribute__((always_inline)) __m256 maximum(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
static inline __attribute__((always_inline)) __m256d maximum(__m256d a, __m256d b) { return _mm256_max_pd(a, b); }

// |h| and w with the sign of h: a product of unsigned and signed bytes, whose pairs the instruction adds.  With both
// in -127 .. 127 it does not saturate.
using Int32x8 = int32_t __attribute__((vector_size(32)));
static inline __attribute__((always_inline)) Int32x8 add_products(Int32x8 acc, Int32x8 w, Int32x8 h) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)h), _mm256_sign_epi8((__m256i)w, (__m256i)h));
  return acc + (Int32x8)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

// The lowest byte of each lane: gcc 12 would take it lane by lane.
static inline __attribute__((always_inline)) int64_t low_bytes(Int32x8 v) {
  const __m256i fours = _mm256_shuffle_epi8((__m256i)v, _mm256_set1_epi32(0x0c080400));
  return _mm_cvtsi128_si64(_mm_unpacklo_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1)));
}

#include "lstm_int8.inl"
#include "lstm_kernels.inl"

}  // namespace
}  // namespace textclf_fast::cpu::avx2

TEXTCLF_TARGET_END

// Every machine calls these, whatever it has.
namespace textclf_fast::cpu::avx2 {

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
  static constexpr Int8Kernels table{"avx2", int8_scratch_bytes, int8_forward};
  return table;
}

}  // namespace textclf_fast::cpu::avx2
#endif

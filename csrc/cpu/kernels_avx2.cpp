// AVX2 with FMA: 32-byte vectors.
#include <immintrin.h>
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

static inline __attribute__((always_inline)) __m256 minimum(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
static inline __attribute__((always_inline)) __m256d minimum(__m256d a, __m256d b) { return _mm256_min_pd(a, b); }
static inline __attribute__((always_inline)) __m256 maximum(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
static inline __attribute__((always_inline)) __m256d maximum(__m256d a, __m256d b) { return _mm256_max_pd(a, b); }

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

// bfloat16 in memory, float in registers.  Included by the instruction sets that multiply it, before the kernels.
#pragma once

#include "intrinsics_avx512.inl"
#include "simd.inl"

template <>
struct Simd<BFloat16> {
  using V = Simd<float>::V;
  static constexpr int64_t kLanes = Simd<float>::kLanes;

  static TEXTCLF_INLINE V load(const BFloat16* p) { return widen(_mm256_loadu_si256((const __m256i*)p)); }
  static TEXTCLF_INLINE void store(BFloat16* p, V v) { _mm256_storeu_si256((__m256i*)p, narrow(v)); }
  static TEXTCLF_INLINE V load_first(const BFloat16* p, int64_t count) {
    return widen(_mm256_maskz_loadu_epi16(first(count), p));
  }
  static TEXTCLF_INLINE void store_first(BFloat16* p, V v, int64_t count) {
    _mm256_mask_storeu_epi16(p, first(count), narrow(v));
  }

 private:
  static TEXTCLF_INLINE __mmask16 first(int64_t count) { return __mmask16((1u << count) - 1); }
  static TEXTCLF_INLINE V widen(__m256i halves) {
    return (V)_mm512_maskz_slli_epi32(-1, _mm512_maskz_cvtepu16_epi32(-1, halves), 16);
  }
  static TEXTCLF_INLINE __m256i narrow(V v) { return (__m256i)_mm512_cvtneps_pbh(v); }  // to the nearest, ties to even
};

// Two numbers of a row, times two of each lane: their sum is rounded once.
template <>
struct Product<BFloat16> {
  using V = Simd<float>::V;
  static constexpr int64_t kPair = 2;
  static TEXTCLF_INLINE __m512i weights(const BFloat16* w) { return _mm512_loadu_si512(w); }
  static TEXTCLF_INLINE __m512i numbers(const BFloat16* a) {
    int both;
    __builtin_memcpy(&both, a, sizeof(both));
    return _mm512_set1_epi32(both);
  }
  static TEXTCLF_INLINE V multiply_add(__m512i w, __m512i x, V sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x);
  }
  static TEXTCLF_INLINE __m512i halves(const BFloat16* p) {  // 16 numbers, each in the lower half of a lane
    return _mm512_maskz_cvtepu16_epi32(-1, _mm256_loadu_si256((const __m256i*)p));
  }
  static TEXTCLF_INLINE void interleave(const BFloat16* a, const BFloat16* b, int64_t count, BFloat16* to) {
    int64_t j = 0;
    for (; j + 16 <= count; j += 16) {
      const __m512i second = b ? halves(b + j) : __m512i{};
      _mm512_storeu_si512(to + 2 * j, halves(a + j) | _mm512_maskz_slli_epi32(-1, second, 16));
    }
    for (; j < count; ++j) {
      to[2 * j] = a[j];
      to[2 * j + 1] = b ? b[j] : BFloat16{0};
    }
  }
};

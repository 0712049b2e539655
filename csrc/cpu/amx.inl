// Products of whole tiles of bfloat16 by Intel's matrix unit (AMX_BF16).  Included by the set that has it, before the
// kernels.
//
// TDPBF16PS multiplies 16 rows of 32 numbers by 32 x 16 and takes 16 cycles: 8 times as much in a cycle as two units
// for vectors of float.  What is left of a step is its cells.
#pragma once

#include "bfloat16.inl"
#include "tiles.inl"

// Tile registers: sums in 0 to 3, rows of `a` in 4, of the panel in 5 to 7.
#define TEXTCLF_TILE_LOAD(tile, from, stride) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #tile::"r"(from), "r"(stride) : "memory")
#define TEXTCLF_TILE_STORE(tile, to, stride) \
  asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"(stride) : "memory")
#define TEXTCLF_TILE_PRODUCT(sum, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum:::)
#define TEXTCLF_TILE_ZERO(tile) asm volatile("tilezero %%tmm" #tile:::)

template <>
struct MatrixUnit<BFloat16> {
  static constexpr int kRows = 16;
  static constexpr int64_t kLeastRows = 2, kDepth = 32;

  // A thread says how large its tiles are, and gives them back: while they are in use a switch of threads saves 8 kB.
  struct Use {
    TEXTCLF_INLINE Use() {
      struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
      } const config;
      asm volatile("ldtilecfg %0" ::"m"(config));
    }
    TEXTCLF_INLINE ~Use() { asm volatile("tilerelease" :::); }
    Use(const Use&) = delete;
  };

  template <int NV>
  static TEXTCLF_INLINE void multiply(Simd<float>::V (&sums)[kRows][NV], const BFloat16* a, int64_t a_stride,
                                      const BFloat16* panel, int64_t depth) {
    static_assert(NV <= 4);
    constexpr int64_t kVector = Simd<float>::kLanes * Product<BFloat16>::kPair, kRowBytes = NV * 64;
    const int64_t a_bytes = a_stride * int64_t(sizeof(BFloat16));
    TEXTCLF_TILE_ZERO(0);
    if constexpr (NV > 1) TEXTCLF_TILE_ZERO(1);
    if constexpr (NV > 2) TEXTCLF_TILE_ZERO(2);
    if constexpr (NV > 3) TEXTCLF_TILE_ZERO(3);
    for (int64_t k = 0; k < depth; k += kDepth, panel += kDepth / 2 * NV * kVector) {
      TEXTCLF_TILE_LOAD(4, a + k, a_bytes);
      TEXTCLF_TILE_LOAD(5, panel, kRowBytes);
      if constexpr (NV > 1) TEXTCLF_TILE_LOAD(6, panel + kVector, kRowBytes);
      if constexpr (NV > 2) TEXTCLF_TILE_LOAD(7, panel + 2 * kVector, kRowBytes);
      TEXTCLF_TILE_PRODUCT(0, 4, 5);
      if constexpr (NV > 3) TEXTCLF_TILE_LOAD(5, panel + 3 * kVector, kRowBytes);
      if constexpr (NV > 1) TEXTCLF_TILE_PRODUCT(1, 4, 6);
      if constexpr (NV > 2) TEXTCLF_TILE_PRODUCT(2, 4, 7);
      if constexpr (NV > 3) TEXTCLF_TILE_PRODUCT(3, 4, 5);
    }
    TEXTCLF_TILE_STORE(0, &sums[0][0], kRowBytes);
    if constexpr (NV > 1) TEXTCLF_TILE_STORE(1, &sums[0][1], kRowBytes);
    if constexpr (NV > 2) TEXTCLF_TILE_STORE(2, &sums[0][2], kRowBytes);
    if constexpr (NV > 3) TEXTCLF_TILE_STORE(3, &sums[0][3], kRowBytes);
  }

  // to (16 rows of 32 numbers, `stride` apart) = the transpose of 16 pairs of rows: from has 16 numbers of each pair
  // beside each other, pairs are `from_stride` numbers apart.
  static TEXTCLF_INLINE void transpose_pairs(const BFloat16* from, int64_t from_stride, BFloat16* to, int64_t stride) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(from + i * from_stride);
    // Words, pairs of words, then quarters: after each stage blocks twice as large are in place.
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = _mm512_maskz_unpacklo_epi32(-1, a[2 * i], a[2 * i + 1]);
      b[2 * i + 1] = _mm512_maskz_unpackhi_epi32(-1, a[2 * i], a[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        a[4 * i + 2 * j] = _mm512_maskz_unpacklo_epi64(-1, b[4 * i + j], b[4 * i + 2 + j]);
        a[4 * i + 2 * j + 1] = _mm512_maskz_unpackhi_epi64(-1, b[4 * i + j], b[4 * i + 2 + j]);
      }
    // a[4 i + j] holds columns j, 4 + j, 8 + j and 12 + j of rows 4 i to 4 i + 3, a quarter each.
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i even = _mm512_maskz_shuffle_i32x4(-1, a[j], a[4 + j], 0x88),
                    odd = _mm512_maskz_shuffle_i32x4(-1, a[j], a[4 + j], 0xdd);
      const __m512i even_end = _mm512_maskz_shuffle_i32x4(-1, a[8 + j], a[12 + j], 0x88);
      const __m512i odd_end = _mm512_maskz_shuffle_i32x4(-1, a[8 + j], a[12 + j], 0xdd);
      _mm512_storeu_si512(to + j * stride, _mm512_maskz_shuffle_i32x4(-1, even, even_end, 0x88));
      _mm512_storeu_si512(to + (4 + j) * stride, _mm512_maskz_shuffle_i32x4(-1, odd, odd_end, 0x88));
      _mm512_storeu_si512(to + (8 + j) * stride, _mm512_maskz_shuffle_i32x4(-1, even, even_end, 0xdd));
      _mm512_storeu_si512(to + (12 + j) * stride, _mm512_maskz_shuffle_i32x4(-1, odd, odd_end, 0xdd));
    }
  }
};

// The product of W_hh and h in each precision: numbers as they are in memory, and a warp's tile of sums.
//
// The tile is 32 gates (8 units) by 8 rows. Weights are the mma's A, rows of h its B: with lane = 4g + t, a lane ends
// with the four gates of unit g for the rows 2t and 2t + 1, so that the cell needs nobody else. The depth has no order
// of its own: a lane takes 16 consecutive bytes of each chunk of h, and the same of W_hh, as the fragments of two mma
// instructions; no ldmatrix, and every load is 16 bytes wide. Strict float32 shares the layout: a lane multiplies its
// quarter of each chunk for all 8 rows, and the four lanes of a unit add up.
#pragma once

#include "../lstm_problem.h"
#include "device.h"
#include "lstm_tiles.h"

namespace textclf_fast::cuda {

// IEEE's 16-bit number.
struct Half {
  uint16_t bits;
};

// What a lane holds of a chunk: 16 bytes of W_hh for each gate.
struct WeightChunk {
  uint4 gate[4];
};

// Sums of a row tile: [gate / 2][gate % 2 * 2 + row], as two mma instructions leave them.
struct TileSums {
  float at[2][4];
};

// One warp's weights: the first chunks are in registers, the others in shared memory.
template <int kRegisterChunks>
struct WarpWeights {
  WeightChunk registers[kRegisterChunks ? kRegisterChunks : 1];
  const uint4* shared;  // this lane's; gate q of chunk c at ((c - kRegisterChunks) * 4 + q) * 32
  int chunks;

  __device__ __forceinline__ WeightChunk from_shared(int chunk) const {
    WeightChunk w;
#pragma unroll
    for (int q = 0; q < 4; ++q) w.gate[q] = shared[((chunk - kRegisterChunks) * 4 + q) * 32];
    return w;
  }
};

namespace detail {

__device__ inline const uint4& load16(const unsigned char* at) { return *reinterpret_cast<const uint4*>(at); }

}  // namespace detail

// mma instructions, summed from what `sums` holds. kWords: numbers of 32 bits, or pairs of 16.
template <class Derived>
struct MmaProduct {
  static constexpr bool kStrict = false;  // a sum of 2^-8 or 2^-11 numbers loses nothing by starting from the gates

  // h: this lane's, that is from byte 16t of row g on; `alive` rows of the tiles are wanted.
  template <int kRowTiles, int kKept>
  __device__ static __forceinline__ void multiply(TileSums (&sums)[kRowTiles], const WarpWeights<kKept>& weights,
                                                  const unsigned char* h, int row_bytes, int alive) {
    const unsigned lane = threadIdx.x % 32;
    h += int(lane / 4) * row_bytes + int(lane % 4) * 16;
#pragma unroll
    for (int c = 0; c < kKept; ++c)
      if (c < weights.chunks) add(sums, weights.registers[c], h + c * kChunkBytes, row_bytes, alive);
#pragma unroll 1
    for (int c = kKept; c < weights.chunks; ++c)
      add(sums, weights.from_shared(c), h + c * kChunkBytes, row_bytes, alive);
  }

 private:
  template <int kRowTiles>
  __device__ static __forceinline__ void add(TileSums (&sums)[kRowTiles], const WeightChunk& w, const unsigned char* h,
                                             int row_bytes, int alive) {
#pragma unroll
    for (int j = 0; j < kRowTiles; ++j) {
      if (j * kTileRows >= alive) continue;
      const uint4 b = detail::load16(h + j * kTileRows * row_bytes);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const uint4 &low = w.gate[2 * m], &high = w.gate[2 * m + 1];
        Derived::mma(sums[j].at[m], {low.x, high.x, low.y, high.y}, {b.x, b.y});
        Derived::mma(sums[j].at[m], {low.z, high.z, low.w, high.w}, {b.z, b.w});
      }
    }
  }
};

struct Tf32Product : MmaProduct<Tf32Product> {
  using Number = float;
  static constexpr int kPerWord = 1;
  __device__ static float value(float x) { return x; }
  __device__ static float number(float x) { return x; }
  __device__ static uint32_t word(const float* x) { return to_tf32(*x); }
  __device__ static uint4 rounded(const uint4& w) {
    return {to_tf32(as_float(w.x)), to_tf32(as_float(w.y)), to_tf32(as_float(w.z)), to_tf32(as_float(w.w))};
  }
  __device__ static void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_tf32(d, a, b); }
};

struct BFloat16Product : MmaProduct<BFloat16Product> {
  using Number = BFloat16;
  static constexpr int kPerWord = 2;
  __device__ static float value(BFloat16 x) { return from_bf16(x.bits); }
  __device__ static BFloat16 number(float x) { return {to_bf16(x)}; }
  __device__ static uint32_t word(const BFloat16* x) { return x[0].bits | uint32_t(x[1].bits) << 16; }
  __device__ static uint4 rounded(const uint4& w) { return w; }
  __device__ static void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_bf16(d, a, b); }
};

struct HalfProduct : MmaProduct<HalfProduct> {
  using Number = Half;
  static constexpr int kPerWord = 2;
  __device__ static float value(Half x) { return from_half(x.bits); }
  __device__ static Half number(float x) { return {to_half(x)}; }
  __device__ static uint32_t word(const Half* x) { return x[0].bits | uint32_t(x[1].bits) << 16; }
  __device__ static uint4 rounded(const uint4& w) { return w; }
  __device__ static void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_half(d, a, b); }
};

// Plain multiplications and additions. A chunk is 128 of them for 8 rows, for 8 loads of 16 bytes of h, the same for
// all lanes of one t.
struct Float32Product {
  using Number = float;
  static constexpr int kPerWord = 1;
  static constexpr bool kStrict = true;  // a sum that starts from the gates rounds at their magnitude every time
  __device__ static float value(float x) { return x; }
  __device__ static float number(float x) { return x; }
  __device__ static uint32_t word(const float* x) { return as_bits(*x); }
  __device__ static uint4 rounded(const uint4& w) { return w; }

  template <int kRowTiles, int kKept>
  __device__ static __forceinline__ void multiply(TileSums (&sums)[kRowTiles], const WarpWeights<kKept>& weights,
                                                  const unsigned char* h, int row_bytes, int alive) {
    const int t = int(threadIdx.x % 4);
    h += t * 16;
#pragma unroll
    for (int j = 0; j < kRowTiles; ++j, h += kTileRows * row_bytes, alive -= kTileRows) {
      if (alive <= 0) continue;
      float part[4][kTileRows] = {};
#pragma unroll
      for (int c = 0; c < kKept; ++c)
        if (c < weights.chunks) add(part, weights.registers[c], h + c * kChunkBytes, row_bytes, alive);
#pragma unroll 1
      for (int c = kKept; c < weights.chunks; ++c)
        add(part, weights.from_shared(c), h + c * kChunkBytes, row_bytes, alive);
      // Lane t keeps the rows 2t and 2t + 1: first the halves are exchanged, then the quarters.
      float half[4][4];
#pragma unroll
      for (int q = 0; q < 4; ++q)
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const float given = t & 2 ? part[q][n] : part[q][n + 4];
          half[q][n] = (t & 2 ? part[q][n + 4] : part[q][n]) + shuffle_xor(given, 2);
        }
#pragma unroll
      for (int q = 0; q < 4; ++q)
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          const float given = t & 1 ? half[q][n] : half[q][n + 2];
          sums[j].at[q / 2][q % 2 * 2 + n] += (t & 1 ? half[q][n + 2] : half[q][n]) + shuffle_xor(given, 1);
        }
    }
  }

 private:
  __device__ static __forceinline__ void add(float (&part)[4][kTileRows], const WeightChunk& w, const unsigned char* h,
                                             int row_bytes, int alive) {
#pragma unroll
    for (int n = 0; n < kTileRows; ++n) {
      if (n >= alive) continue;
      const uint4 b = detail::load16(h + n * row_bytes);
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        float sum = part[q][n];
        sum += as_float(w.gate[q].x) * as_float(b.x);
        sum += as_float(w.gate[q].y) * as_float(b.y);
        sum += as_float(w.gate[q].z) * as_float(b.z);
        sum += as_float(w.gate[q].w) * as_float(b.w);
        part[q][n] = sum;
      }
    }
  }
};

// 16 bytes of a row from `number` on, for products; zero from `end` on. aligned: rows begin at multiples of 16 bytes,
// and `end` is one.
template <class Product>
__device__ inline uint4 load_numbers(const typename Product::Number* row, int number, int end, bool aligned) {
  using Number = typename Product::Number;
  constexpr int kPerWord = Product::kPerWord;
  uint4 words{0, 0, 0, 0};
  if (aligned) {
    if (number < end) words = *reinterpret_cast<const uint4*>(row + number);
    return Product::rounded(words);
  }
  // Rolled up: unrolled, the loads of all weights would want more registers than there are.
#pragma unroll 1
  for (int k = 0; k < 4; ++k, number += kPerWord) {
    Number numbers[2] = {Product::number(0), Product::number(0)};
#pragma unroll
    for (int i = 0; i < kPerWord; ++i)
      if (number + i < end) numbers[i] = row[number + i];
    const uint32_t word = Product::word(numbers);
    words.x = k == 0 ? word : words.x;
    words.y = k == 1 ? word : words.y;
    words.z = k == 2 ? word : words.z;
    words.w = k == 3 ? word : words.w;
  }
  return words;
}

}  // namespace textclf_fast::cuda

// Packed panels of W_hh and the product of a tile of rows with one.  Included once per instruction set, see simd.inl.
#pragma once

#include "simd.inl"

static TEXTCLF_INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static TEXTCLF_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static TEXTCLF_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

template <class T>
static TEXTCLF_INLINE int64_t padded(int64_t hidden) {
  return divide_up(hidden, Simd<T>::kLanes) * Simd<T>::kLanes;
}

template <class T>
static TEXTCLF_INLINE void copy_rows(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows,
                                     int64_t count) {
  for (int64_t r = 0; r < rows; ++r) __builtin_memcpy(to + r * to_stride, from + r * from_stride, count * sizeof(T));
}

// The same from one type of storage to another.
template <class From, class To>
static TEXTCLF_INLINE void convert_rows(const From* from, int64_t from_stride, To* to, int64_t to_stride, int64_t rows,
                                        int64_t count) {
  constexpr int64_t L = Simd<From>::kLanes;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < count; j += L) {
      const int64_t lanes = smaller(L, count - j);
      Simd<To>::store_first(to + r * to_stride + j, Simd<From>::load_first(from + r * from_stride + j, lanes), lanes);
    }
}

// Scratch memory, in whole cache lines.
template <class T>
static TEXTCLF_INLINE int64_t line_bytes(int64_t count) {
  return divide_up(count * int64_t(sizeof(T)), 64) * 64;
}
template <class T>
static TEXTCLF_INLINE T* take(char*& scratch, int64_t count) {
  T* taken = reinterpret_cast<T*>(scratch);
  scratch += line_bytes<T>(count);
  return taken;
}

constexpr int64_t kGates = 4;
constexpr int64_t kGroup = 4;  // vectors of columns in a backward panel

template <class T>
static int64_t forward_blocks(int64_t hidden) {
  return divide_up(hidden, Simd<T>::kLanes);
}
template <class T>
static int64_t forward_panel_size(int64_t hidden) {
  return kGates * hidden * padded<T>(hidden);
}

// panels: (blocks, H / kPair, 4, kLanes, kPair)
template <class T>
static void pack_forward(const T* w_hh, int64_t hidden, int64_t block, T* panels) {
  constexpr int64_t L = Simd<T>::kLanes, kPair = Product<T>::kPair;
  T* panel = panels + block * hidden * kGates * L;
  const int64_t units = smaller(L, hidden - block * L);
  for (int64_t gate = 0; gate < kGates; ++gate) {
    const T* from[L];  // rows of W_hh: those of lanes past the last unit are within it too, and not used
    for (int64_t lane = 0; lane < L; ++lane)
      from[lane] = w_hh + (gate * hidden + smaller(block * L + lane, hidden - 1)) * hidden;
    // Whole lines are written: across the lanes first.
    for (int64_t k = 0; k < hidden; ++k) {
      T* to = panel + k / kPair * kPair * kGates * L + gate * L * kPair + k % kPair;
      if (units == L)
        for (int64_t lane = 0; lane < L; ++lane) to[lane * kPair] = from[lane][k];
      else
        for (int64_t lane = 0; lane < L; ++lane) to[lane * kPair] = lane < units ? from[lane][k] : T{};
    }
  }
}

template <class T>
static int64_t backward_groups(int64_t hidden) {
  return divide_up(hidden, kGroup * Simd<T>::kLanes);
}
template <class T>
static int64_t backward_panel_size(int64_t hidden) {
  return kGates * hidden * padded<T>(hidden);
}

// panels: a group of up to 4 vectors of columns after the other, each (4H / kPair, vectors, kLanes, kPair)
template <class T>
static void pack_backward(const T* w_hh, int64_t hidden, int64_t group, T* panels) {
  constexpr int64_t kPair = Product<T>::kPair;
  const int64_t first = group * kGroup * Simd<T>::kLanes;
  const int64_t width = smaller(kGroup * Simd<T>::kLanes, padded<T>(hidden) - first);
  const int64_t columns = smaller(width, hidden - first);
  T* panel = panels + first * kGates * hidden;
  for (int64_t k = 0; k < kGates * hidden; ++k) {
    T* to = panel + k / kPair * kPair * width + k % kPair;
    const T* from = w_hh + k * hidden + first;
    for (int64_t j = 0; j < columns; ++j) to[j * kPair] = from[j];
    for (int64_t j = columns; j < width; ++j) to[j * kPair] = T{};
  }
}

// acc (R, NV vectors) += a (R rows of `depth`, `stride` apart) @ panel (depth, NV vectors), from the first number on
// or, kStep = -1, from the last.
template <class T, int R, int NV, int kStep = 1>
static TEXTCLF_INLINE void multiply_add(typename Simd<T>::V (&acc)[R][NV], const T* a, int64_t stride, const T* panel,
                                        int64_t depth) {
  using M = Product<T>;
  constexpr int64_t kVector = Simd<T>::kLanes * M::kPair, kWidth = NV * kVector;
  if constexpr (kStep < 0) a += depth - M::kPair, panel += (depth / M::kPair - 1) * kWidth;
  for (int64_t k = 0; k < depth; k += M::kPair, a += kStep * M::kPair, panel += kStep * kWidth) {
    decltype(M::weights(panel)) w[NV];
#pragma GCC unroll 4
    for (int n = 0; n < NV; ++n) w[n] = M::weights(panel + n * kVector);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto x = M::numbers(a + r * stride);
#pragma GCC unroll 4
      for (int n = 0; n < NV; ++n) acc[r][n] = M::multiply_add(w[n], x, acc[r][n]);
    }
  }
}

// Cuts `rows` into tiles of kTileRows or less, as even as can be (7 rows in tiles of at most 6 are 4 + 3, not 6 + 1: a
// tile of one row waits for W_hh instead of computing), and calls tile(integral row count, first row).
template <int R, class F>
static TEXTCLF_INLINE void run_tile(int64_t rows, int64_t first, const F& tile) {
  if constexpr (R == 1) {
    tile.template operator()<1>(first);
  } else {
    if (rows == R)
      tile.template operator()<R>(first);
    else
      run_tile<R - 1>(rows, first, tile);
  }
}
template <class F>
static TEXTCLF_INLINE void for_tiles(int64_t rows, const F& tile) {
  const int64_t tiles = divide_up(rows, kTileRows);
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t first = rows * i / tiles;
    run_tile<kTileRows>(rows * (i + 1) / tiles - first, first, tile);
  }
}

// Calls f<number of vectors>() for the next group of at most kGroup vectors out of `columns` padded columns.
template <class T, class F>
static TEXTCLF_INLINE void with_vectors(int64_t columns, const F& f) {
  switch (smaller(kGroup, columns / Simd<T>::kLanes)) {
    case 1:
      return f.template operator()<1>();
    case 2:
      return f.template operator()<2>();
    case 3:
      return f.template operator()<3>();
    default:
      return f.template operator()<4>();
  }
}

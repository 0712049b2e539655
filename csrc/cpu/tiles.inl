// Tiles of rows, and the product of one with a packed panel of weights (panels.inl).  Included once per instruction
// set, see simd.inl.
#pragma once

#include "simd.inl"

static constexpr TEXTCLF_INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static constexpr TEXTCLF_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static constexpr TEXTCLF_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

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

// Whether all bits of `count` numbers are zero.
template <class T>
static TEXTCLF_INLINE bool all_zero(const T* numbers, int64_t count) {
  const char* const bytes = reinterpret_cast<const char*>(numbers);
  const int64_t size = count * int64_t(sizeof(T));
  uint64_t bits = 0;
  for (int64_t i = 0; i + 8 <= size; i += 8) {
    uint64_t word;
    __builtin_memcpy(&word, bytes + i, 8);
    bits |= word;
  }
  for (int64_t i = size / 8 * 8; i < size; ++i) bits |= uint8_t(bytes[i]);
  return bits == 0;
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
constexpr int64_t kGroup = 4;  // vectors beside each other in a panel: forward the gates, backward a group of columns
// Groups that one row, or two, walk side by side: a row has 4 sums a group under way, and needs 8 where two
// multiply-adds begin in a cycle and take four.  (Sums of two rows and two groups fill 16 registers, which AVX-512 has
// twice.)
constexpr int kOneRowGroups = 2;
constexpr int kTwoRowGroups = kTileVectors < kGroup ? 1 : 2;

template <class T>
static TEXTCLF_INLINE int64_t forward_blocks(int64_t hidden) {
  return divide_up(hidden, Simd<T>::kLanes);
}
template <class T>
static TEXTCLF_INLINE int64_t column_groups(int64_t columns) {
  return divide_up(columns, kGroup * Simd<T>::kLanes);
}

// A unit for products of matrices, of kRows rows at a time and kDepth numbers of each; a set that has one: amx.inl.
template <class T>
struct MatrixUnit {
  static constexpr int kRows = 0;
  static constexpr int64_t kLeastRows = 0, kDepth = 1;  // fewer rows are faster as vectors
  struct Use {};
};
template <class T>
static constexpr bool kHasMatrixUnit = MatrixUnit<T>::kRows > 0;

// Rows that a tile may read beyond the last one; what they hold does not matter.
template <class T>
static constexpr int64_t kRowsBeyond = kHasMatrixUnit<T> ? MatrixUnit<T>::kRows - 1 : 0;

// The rows [first, first + count) of a panel of `depth` rows; and what many rows ask for while they are multiplied, see
// PanelAhead.
template <class T>
struct PanelRows {
  const T* panel;
  int64_t depth, first, count;
  const T* ahead = nullptr;
};

// A panel that the second-level cache does not keep from step to step comes to it from the third one, of which a core
// of some servers reads 14 bytes a cycle, while a tile of rows takes 21.  The first tile of a panel would wait for it.
// So the tiles behind that one, which find their panel in the second level, ask for the next: kLines lines of 64 bytes
// in each step of their product.  On an Ice Lake at H = 512 and 16 rows a thread inference is 1.15 times as fast, and
// the backward 1.12 times.
template <class T>
struct PanelAhead {
  static constexpr int64_t kLines = 2, kLine = 64 / int64_t(sizeof(T));

  const T* next = nullptr;  // null: nothing is asked for
  int64_t size = 0;         // its numbers
  int64_t steps = 0;        // of a tile's product
  int64_t tiles = 0;        // that have begun

  // From where on the tile asks that begins now; null: for nothing.
  TEXTCLF_INLINE const T* begin_tile() {
    const int64_t first = (tiles++ - 1) * steps * kLines * kLine;
    return next && first >= 0 && first < size ? next + first : nullptr;
  }
};

// acc (R, NV vectors) += a (R rows of `count` numbers, `stride` apart) @ rows of a panel (count, NV vectors), from the
// first on or, kStep = -1, from the last.
//
// A panel is stored in streams, as wide as the registers hold sums for a whole tile of rows: tile by tile one is walked
// after the other.  Few rows would have too few sums under way so (a multiply-add takes four cycles, and two begin in
// each): they walk all streams side by side.  Either way the sums are the same.
template <class T, int R, int NV, int kStep = 1, int kFirst = 0, bool kAhead = false>
static TEXTCLF_INLINE void multiply_add(typename Simd<T>::V (&acc)[R][NV], const T* a, int64_t stride,
                                        const PanelRows<T>& rows) {
  using M = Product<T>;
  constexpr int kTogether = R <= kFewRows ? NV : smaller(NV - kFirst, kTileVectors);
  const int64_t start = kStep < 0 ? rows.count - M::kPair : 0;
  const auto width = [](int n) {  // of the stream that vector n is in
    const int stream = n / kTileVectors * kTileVectors;
    return smaller(kTileVectors, NV - stream) * Simd<T>::kLanes * M::kPair;
  };
  const T* w_at[kTogether];
#pragma GCC unroll 8
  for (int n = 0; n < kTogether; ++n) {
    const int64_t stream = (kFirst + n) / kTileVectors * kTileVectors;
    w_at[n] = rows.panel + stream * rows.depth * Simd<T>::kLanes + (rows.first + start) / M::kPair * width(kFirst + n) +
              (kFirst + n - stream) * Simd<T>::kLanes * M::kPair;
  }
  const T* x_at = a + start;
  [[maybe_unused]] const T* ahead = rows.ahead;
  const auto row = [&]() TEXTCLF_INLINE_LAMBDA {
    if constexpr (kAhead)
#pragma GCC unroll 4
      for (int line = 0; line < PanelAhead<T>::kLines; ++line, ahead += PanelAhead<T>::kLine)
        __builtin_prefetch(ahead, 0, 2);
    decltype(M::weights(a)) w[kTogether];
#pragma GCC unroll 8
    for (int n = 0; n < kTogether; ++n) {
      w[n] = M::weights(w_at[n]);
      w_at[n] += kStep * width(kFirst + n);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto x = M::numbers(x_at + r * stride);
#pragma GCC unroll 8
      for (int n = 0; n < kTogether; ++n) acc[r][kFirst + n] = M::multiply_add(w[n], x, acc[r][kFirst + n]);
    }
    x_at += kStep * M::kPair;
  };
  int64_t k = 0;
  if constexpr (R <= kFewRows)  // so short a row notices the loop: 2 to 6 % of a step
    for (; k + 4 * M::kPair <= rows.count; k += 4 * M::kPair) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) row();
    }
  for (; k < rows.count; k += M::kPair) row();
  if constexpr (kFirst + kTogether < NV) multiply_add<T, R, NV, kStep, kFirst + kTogether>(acc, a, stride, rows);
}

// acc (R, NV vectors) = the same product, from the last row of the panel's on where few rows go `backwards`.
//
// Few rows (kFewRows) wait for W_hh: every other step then walks it from its end, and so begins with what the step
// before has left in the nearest cache: 8 % at H = 128, 6 % at H = 512.  Many rows would lose 2 %.  By t, not by the
// step's number: a row's sums do not depend on how long the others are.
template <class T, int R, int NV, bool kAhead = false>
static TEXTCLF_INLINE void multiply(typename Simd<T>::V (&acc)[R][NV], const T* a, int64_t stride,
                                    const PanelRows<T>& rows, bool backwards = false) {
  if constexpr (kHasMatrixUnit<T> && R == MatrixUnit<T>::kRows) {
    MatrixUnit<T>::multiply(acc, a, stride, rows.panel + rows.first * NV * Simd<T>::kLanes, rows.count);
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) acc[r][n] = typename Simd<T>::V{};
    constexpr bool kFew = R <= kFewRows, kAsks = R > kFewRows && kAhead;
    if (kFew && backwards)
      multiply_add<T, R, NV, -1>(acc, a, stride, rows);
    else if (kAsks && rows.ahead)
      multiply_add<T, R, NV, 1, 0, kAsks>(acc, a, stride, rows);
    else
      multiply_add<T, R, NV>(acc, a, stride, rows);
  }
}

// How h is multiplied: `terms` numbers of it, or none where it is zero; many rows ask for what is `ahead` (PanelAhead).
// Few rows take rows [0, split) of a panel and those from there on, either of which may be the first, as their sums are
// added at the end; between(), when the first is done.
template <class T, class F>
struct ProductOrder {
  int64_t terms;
  const T* ahead;
  int64_t split;
  bool second_first, backwards;
  const F& between;
};
template <class T, int R, int NV, class F>
static TEXTCLF_INLINE void multiply_halves(typename Simd<T>::V (&acc)[R][NV], const T* a, int64_t stride,
                                           const PanelRows<T>& rows, const ProductOrder<T, F>& order) {
  const auto half = [&](typename Simd<T>::V(&sum)[R][NV], bool second) TEXTCLF_INLINE_LAMBDA {
    const int64_t first = second ? order.split : 0, count = second ? rows.count - order.split : order.split;
    multiply<T>(sum, a + first, stride, {rows.panel, rows.depth, rows.first + first, count}, order.backwards);
  };
  half(acc, order.second_first);
  order.between();
  typename Simd<T>::V sum[R][NV];
  half(sum, !order.second_first);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < NV; ++n) acc[r][n] += sum[r][n];
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
template <int kRows = kTileRows, class F>
static TEXTCLF_INLINE void for_tiles(int64_t rows, const F& tile) {
  const int64_t tiles = divide_up(rows, kRows);
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t first = rows * i / tiles;
    run_tile<kRows>(rows * (i + 1) / tiles - first, first, tile);
  }
}

// Calls f<number of vectors>() for the next kMost vectors, or less, out of `columns` padded columns.
template <class T, int kMost = kGroup, class F>
static TEXTCLF_INLINE void with_vectors(int64_t columns, const F& f) {
  if constexpr (kMost > 1)
    if (columns < kMost * Simd<T>::kLanes) return with_vectors<T, kMost - 1>(columns, f);
  return f.template operator()<kMost>();
}

// The same for a product over `depth` numbers, which the matrix unit takes where they fill its tiles: the last of these
// may have fewer rows, tile(kRows, first row, rows).
template <class T, class F>
static TEXTCLF_INLINE void for_product_tiles(int64_t rows, int64_t depth, const F& tile) {
  if constexpr (kHasMatrixUnit<T>) {
    constexpr int kRows = MatrixUnit<T>::kRows;
    if (rows >= MatrixUnit<T>::kLeastRows && depth % MatrixUnit<T>::kDepth == 0) {
      for (int64_t r = 0; r < rows; r += kRows) tile.template operator()<kRows>(r, smaller(kRows, rows - r));
      return;
    }
  }
  for_tiles(rows, [&]<int R>(int64_t r) { tile.template operator()<R>(r, R); });
}

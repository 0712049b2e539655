// The projection of a cell's output m, h = W_hr m, and its gradient, step by step.  Included once per instruction set,
// see simd.inl.
#pragma once

#include "team.inl"
#include "tiles.inl"

// to (rows, columns; `to_stride` apart, which is either `columns` or whole vectors) = a (rows, depth) @ the panels of
// the column groups [group, group_end), as kSums sums of as many terms each: they round less than one.
template <class T, int kSums = 1, class To>
static void multiply_groups(const T* a, int64_t a_stride, int64_t depth, const T* panels, int64_t columns, int64_t rows,
                            int64_t group, int64_t group_end, To* to, int64_t to_stride) {
  constexpr int64_t L = Simd<T>::kLanes;
  const int64_t width = (rows == 1 ? kOneRowGroups : 1) * kGroup * L;
  const int64_t end = smaller(group_end * kGroup * L, padded<T>(columns));
  for (int64_t column = group * kGroup * L; column < end; column += width) {
    const auto tile = [&]<int R, int NV>(int64_t r, int64_t in_tile) {
      typename Simd<T>::V acc[R][NV];
      const int64_t rows_here = R == MatrixUnit<T>::kRows ? in_tile : R, terms = depth / kSums;
      multiply<T>(acc, a + r * a_stride, a_stride, {panels + column * depth, depth, 0, terms});
      for (int64_t first = terms; first < depth; first += terms) {
        typename Simd<T>::V sum[R][NV];
        multiply<T>(sum, a + r * a_stride + first, a_stride, {panels + column * depth, depth, first, terms});
#pragma GCC unroll 8
        for (int i = 0; i < rows_here; ++i)
#pragma GCC unroll 8
          for (int n = 0; n < NV; ++n) acc[i][n] += sum[i][n];
      }
#pragma GCC unroll 8
      for (int i = 0; i < rows_here; ++i)
#pragma GCC unroll 8
        for (int n = 0; n < NV; ++n) {
          const int64_t at = column + n * L;
          Simd<To>::store_first(to + (r + i) * to_stride + at, acc[i][n], smaller(L, to_stride - at));
        }
    };
    if (rows == 1)
      with_vectors<T, kOneRowGroups * kGroup>(end - column, [&]<int NV>() { tile.template operator()<1, NV>(0, 1); });
    else
      for_product_tiles<T>(rows, depth / kSums, [&]<int R>(int64_t r, int64_t n) {
        with_vectors<T>(end - column, [&]<int NV>() { tile.template operator()<R, NV>(r, n); });
      });
  }
}

// Rows [row, row_end) of a step that starts at `position`: the columns of h in the groups [group, group_end) from m,
// for the next step and the output, and for h_n where a row, from going_on on, ends.
template <class T>
static void project_rows(const LstmForward<T>& p, int64_t direction, int64_t position, const Share& share,
                         int64_t going_on, const T* panels, const T* m, T* h) {
  const LstmShape& s = p.shape;
  const int64_t H = s.hidden, P = s.projected, stride = padded<T>(H), h_stride = padded<T>(P);
  multiply_groups(m + share.row * stride, stride, H, panels, P, share.row_end - share.row, share.block, share.block_end,
                  h + share.row * h_stride, h_stride);
  constexpr int64_t kWidth = kGroup * Simd<T>::kLanes;
  const int64_t column = share.block * kWidth, bytes = (smaller(share.block_end * kWidth, P) - column) * sizeof(T);
  for (int64_t r = share.row; r < share.row_end; ++r) {
    const T* from = h + r * h_stride + column;
    if (p.output) {
      const int64_t place = p.place ? p.place[position + r] : position + r;
      __builtin_memcpy(p.output + (place * s.directions + direction) * P + column, from, bytes);
    }
    if (r >= going_on) __builtin_memcpy(p.h_n + (direction * s.rows + r) * P + column, from, bytes);
  }
}

// The gradient of W_hh.  Included once per instruction set, see simd.inl.
#pragma once

#include "lstm_backward.inl"
#include "tiles.inl"

// Positions are summed in runs of this many, each in registers and then added to the result: short sums round less, and
// 64 * 24 multiply-adds a tile hide the 24 additions to memory.
constexpr int64_t kRun = 64;

template <class T>
static int64_t weight_grad_scratch_size(int64_t hidden) {
  return kRun * padded<T>(hidden);
}

// to (R rows, NV vectors) = or += sum over `count` positions of a (R numbers, rows 4H apart) x h (NV vectors, rows P
// apart)
template <class T, int R, int NV>
static void weight_grad_tile(const T* a, const T* h, int64_t count, int64_t hidden, int64_t columns, bool first,
                             T* to) {
  using S = Simd<T>;
  typename S::V acc[R][NV] = {};
  for (int64_t n = 0; n < count; ++n, a += kGates * hidden, h += padded<T>(hidden)) {
    typename S::V b[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) b[v] = S::load(h + v * S::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] += b[v] * a[r];
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      T* at = to + r * hidden + v * S::kLanes;
      const int64_t lanes = smaller(S::kLanes, columns - v * S::kLanes);
      S::store_first(at, first ? acc[r][v] : S::load_first(at, lanes) + acc[r][v], lanes);
    }
}

template <class T>
static void weight_grad(const LstmWeightGrad<T>& p, int64_t d, int64_t begin, int64_t end, T* scratch) {
  constexpr int64_t L = Simd<T>::kLanes;
  const LstmShape& s = p.shape;
  const int64_t H = s.hidden, P = padded<T>(H);
  for (int64_t i = 0; i < weight_grad_scratch_size<T>(H); ++i) scratch[i] = T(0);
  int64_t t = 0;
  for (int64_t start = 0; start < s.positions; start += kRun) {
    const int64_t count = smaller(kRun, s.positions - start);
    for (int64_t n = start; n < start + count; ++n) {
      while (n >= s.offsets[t + 1]) ++t;
      const int64_t row = n - s.offsets[t], before = previous_position(s, d, t, row);
      const T* h = before < 0 ? p.h0 + (d * s.rows + row) * H : p.output + (before * s.directions + d) * H;
      __builtin_memcpy(scratch + (n - start) * P, h, H * sizeof(T));
    }
    const T* grad_gates = p.grad_gates + (d * s.positions + start) * kGates * H + begin;
    T* to = p.grad_w_hh + (d * kGates * H + begin) * H;
    for (int64_t column = 0; column < P; column += kGroup * L)
      for_tiles(end - begin, [&]<int R>(int64_t r) {
        with_vectors<T>(P - column, [&]<int NV>() {
          weight_grad_tile<T, R, NV>(grad_gates + r, scratch + column, count, H, H - column, start == 0,
                                     to + r * H + column);
        });
      });
  }
}

// Packed panels of W_hh, W_hr and W_ih, in the order in which the steps read them.  Included once per instruction set,
// see simd.inl.
#pragma once

#include "tiles.inl"
#include "transpose.inl"

// A panel is a group of up to kGroup vectors in streams of up to kTileVectors, see multiply_add, each of these
// (depth / kPair, vectors, kLanes, kPair).

// Vector `vector` of a panel of `vectors` and panel_depth rows, from its row `first` on: lane l is row l of `count` <=
// kLanes rows, `depth` numbers each; the lanes past them are zero.
template <class T>
static TEXTCLF_INLINE void pack_rows(const T* rows, int64_t count, int64_t depth, int64_t vectors, int64_t vector,
                                     T* panel, int64_t panel_depth, int64_t first) {
  constexpr int64_t L = Simd<T>::kLanes, kPair = Product<T>::kPair;
  const int64_t stream = vector / kTileVectors * kTileVectors, width = smaller(kTileVectors, vectors - stream) * L;
  T* const start = panel + stream * panel_depth * L + first / kPair * kPair * width + (vector - stream) * L * kPair;
  int64_t k = 0;
  if (count == L)  // what stays together is a pair of numbers, or one
    for (; k + L * kPair <= depth; k += L * kPair)
      transpose<T, kPair>(rows + k, depth, start + k * width, width * kPair);
  for (; k < depth; ++k) {
    T* to = start + k / kPair * kPair * width + k % kPair;
    for (int64_t lane = 0; lane < L; ++lane) to[lane * kPair] = lane < count ? rows[lane * depth + k] : T{};
  }
}

// The panel of a group of columns of a matrix (depth, columns): the panels lie one after the other.
template <class T>
static TEXTCLF_INLINE void pack_columns(const T* matrix, int64_t depth, int64_t columns, int64_t group, T* panels) {
  constexpr int64_t kPair = Product<T>::kPair, kStream = kTileVectors * Simd<T>::kLanes;
  const int64_t first = group * kGroup * Simd<T>::kLanes;
  const int64_t end = smaller(first + kGroup * Simd<T>::kLanes, padded<T>(columns));
  for (int64_t column = first; column < end; column += kStream) {
    const int64_t width = smaller(kStream, end - column), count = smaller(width, columns - column);
    T* stream = panels + column * depth;
    for (int64_t k = 0; k < depth; ++k) {
      T* to = stream + k / kPair * kPair * width + k % kPair;
      const T* from = matrix + k * columns + column;
      if (kPair == 1 && count == kStream) {  // a constant: moves instead of a loop
        __builtin_memcpy(to, from, kStream * sizeof(T));
        continue;
      }
      for (int64_t j = 0; j < count; ++j) to[j * kPair] = from[j];
      for (int64_t j = count; j < width; ++j) to[j * kPair] = T{};
    }
  }
}

// The forward's panels: a block of units after the other, each the four gates of kLanes units, W_hh's P numbers of each
// and W_ih's I; behind them those of W_hr (P, H), the columns of its transpose in groups.  A piece is a block or a
// group.
template <class T>
static int64_t forward_panel_size(const WeightSizes& s) {
  return kGates * (s.width() + s.input) * padded<T>(s.hidden) + s.hidden * padded<T>(s.projected);
}
template <class T>
static int64_t forward_pieces(const WeightSizes& s) {
  return forward_blocks<T>(s.hidden) + column_groups<T>(s.projected);
}
template <class T>
static void pack_forward(const Weights<T>& weights, const WeightSizes& s, int64_t piece, T* panels) {
  constexpr int64_t L = Simd<T>::kLanes;
  const int64_t H = s.hidden, P = s.width(), depth = P + s.input, group = piece - forward_blocks<T>(H);
  if (group < 0) {
    const int64_t unit = piece * L, count = smaller(L, H - unit);
    T* panel = panels + unit * kGates * depth;
    for (int64_t gate = 0; gate < kGates; ++gate) {
      pack_rows(weights.w_hh + (gate * H + unit) * P, count, P, kGates, gate, panel, depth, 0);
      if (s.input) pack_rows(weights.w_ih + (gate * H + unit) * s.input, count, s.input, kGates, gate, panel, depth, P);
    }
    return;
  }
  const int64_t first = group * kGroup * L, vectors = smaller(kGroup, forward_blocks<T>(s.projected - first));
  T* panel = panels + kGates * depth * padded<T>(H) + first * H;
  for (int64_t v = 0; v < vectors; ++v) {
    const int64_t row = first + v * L;
    pack_rows(weights.w_hr + row * H, smaller(L, s.projected - row), H, vectors, v, panel, H, 0);
  }
}

// The backward's: W_hh's columns in groups, behind them W_hr's, behind them W_ih's.
template <class T>
static int64_t backward_panel_size(const WeightSizes& s) {
  return kGates * s.hidden * (padded<T>(s.width()) + padded<T>(s.input)) + s.projected * padded<T>(s.hidden);
}
template <class T>
static int64_t backward_pieces(const WeightSizes& s) {
  return column_groups<T>(s.width()) + (s.projected ? column_groups<T>(s.hidden) : 0) + column_groups<T>(s.input);
}
// Where those of W_ih are.
template <class T>
static int64_t backward_input_panels(const WeightSizes& s) {
  return backward_panel_size<T>({s.hidden, s.projected});
}
template <class T>
static void pack_backward(const Weights<T>& weights, const WeightSizes& s, int64_t piece, T* panels) {
  const int64_t depth = kGates * s.hidden, hh_pieces = column_groups<T>(s.width());
  const int64_t before_input = backward_pieces<T>({s.hidden, s.projected});
  if (piece < hh_pieces)
    pack_columns(weights.w_hh, depth, s.width(), piece, panels);
  else if (piece < before_input)
    pack_columns(weights.w_hr, s.projected, s.hidden, piece - hh_pieces, panels + depth * padded<T>(s.width()));
  else
    pack_columns(weights.w_ih, depth, s.input, piece - before_input, panels + backward_input_panels<T>(s));
}

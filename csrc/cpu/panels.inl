// Packed panels of W_hh and W_hr, in the order in which the steps read them.  Included once per instruction set, see
// simd.inl.
#pragma once

#include "tiles.inl"

// A panel is a group of up to kGroup vectors in streams of up to kTileVectors, see multiply_add, each of these
// (depth / kPair, vectors, kLanes, kPair).

// Vector `vector` of a panel of `vectors`: lane l is row l of `count` <= kLanes rows, `depth` numbers each; the lanes
// past them are zero.
template <class T>
static TEXTCLF_INLINE void pack_rows(const T* rows, int64_t count, int64_t depth, int64_t vectors, int64_t vector,
                                     T* panel) {
  constexpr int64_t L = Simd<T>::kLanes, kPair = Product<T>::kPair;
  const int64_t stream = vector / kTileVectors * kTileVectors, width = smaller(kTileVectors, vectors - stream) * L;
  const T* from[L];  // those of lanes past the last row are within the matrix too, and not used
  for (int64_t lane = 0; lane < L; ++lane) from[lane] = rows + smaller(lane, count - 1) * depth;
  // Whole lines are written: across the lanes first.
  for (int64_t k = 0; k < depth; ++k) {
    T* to = panel + stream * depth * L + k / kPair * kPair * width + (vector - stream) * L * kPair + k % kPair;
    if (count == L)
      for (int64_t lane = 0; lane < L; ++lane) to[lane * kPair] = from[lane][k];
    else
      for (int64_t lane = 0; lane < L; ++lane) to[lane * kPair] = lane < count ? from[lane][k] : T{};
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
      for (int64_t j = 0; j < count; ++j) to[j * kPair] = from[j];
      for (int64_t j = count; j < width; ++j) to[j * kPair] = T{};
    }
  }
}

// P: the numbers of h.
static TEXTCLF_INLINE int64_t h_width(int64_t hidden, int64_t projected) { return projected ? projected : hidden; }

// The forward's panels of W_hh (4H, P): a block of units after the other, each the four gates of kLanes units; behind
// them those of W_hr (P, H), the columns of its transpose in groups.  A piece is a block or a group.
template <class T>
static int64_t forward_panel_size(int64_t hidden, int64_t projected) {
  return kGates * h_width(hidden, projected) * padded<T>(hidden) + hidden * padded<T>(projected);
}
template <class T>
static int64_t forward_pieces(int64_t hidden, int64_t projected) {
  return forward_blocks<T>(hidden) + column_groups<T>(projected);
}
template <class T>
static void pack_forward(const T* w_hh, const T* w_hr, int64_t hidden, int64_t projected, int64_t piece, T* panels) {
  constexpr int64_t L = Simd<T>::kLanes;
  const int64_t width = h_width(hidden, projected), group = piece - forward_blocks<T>(hidden);
  if (group < 0) {
    const int64_t unit = piece * L;
    for (int64_t gate = 0; gate < kGates; ++gate)
      pack_rows(w_hh + (gate * hidden + unit) * width, smaller(L, hidden - unit), width, kGates, gate,
                panels + unit * kGates * width);
    return;
  }
  const int64_t first = group * kGroup * L, vectors = smaller(kGroup, forward_blocks<T>(projected - first));
  T* panel = panels + kGates * width * padded<T>(hidden) + first * hidden;
  for (int64_t v = 0; v < vectors; ++v) {
    const int64_t row = first + v * L;
    pack_rows(w_hr + row * hidden, smaller(L, projected - row), hidden, vectors, v, panel);
  }
}

// The backward's: W_hh's columns in groups, and behind them W_hr's.
template <class T>
static int64_t backward_panel_size(int64_t hidden, int64_t projected) {
  return kGates * hidden * padded<T>(h_width(hidden, projected)) + projected * padded<T>(hidden);
}
template <class T>
static int64_t backward_pieces(int64_t hidden, int64_t projected) {
  return projected ? column_groups<T>(projected) + column_groups<T>(hidden) : column_groups<T>(hidden);
}
template <class T>
static void pack_backward(const T* w_hh, const T* w_hr, int64_t hidden, int64_t projected, int64_t piece, T* panels) {
  const int64_t width = h_width(hidden, projected), group = piece - column_groups<T>(width);
  if (group < 0)
    pack_columns(w_hh, kGates * hidden, width, piece, panels);
  else
    pack_columns(w_hr, projected, hidden, group, panels + kGates * hidden * padded<T>(width));
}

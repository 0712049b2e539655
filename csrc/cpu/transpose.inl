// Squares of a matrix, turned in registers.  Included once per instruction set, see simd.inl.
#pragma once

#include "simd.inl"

template <int... kLane>
struct Lanes {};
template <int kCount, int... kLane>
struct CountLanes : CountLanes<kCount - 1, kCount - 1, kLane...> {};
template <int... kLane>
struct CountLanes<0, kLane...> {
  using type = Lanes<kLane...>;
};

// Two rows, kSize apart, exchange blocks of kSize lanes: the second one's even blocks for the first one's odd ones.
template <int kSize, class V, int... kLane>
static TEXTCLF_INLINE void exchange_blocks(V& a, V& b, Lanes<kLane...>) {
  constexpr int L = sizeof...(kLane);
  const V first = __builtin_shufflevector(a, b, (kLane & kSize ? L + kLane - kSize : kLane)...);
  b = __builtin_shufflevector(a, b, (kLane & kSize ? L + kLane : kLane + kSize)...);
  a = first;
}
template <int kSize, class V, int L>
static TEXTCLF_INLINE void transpose_blocks(V (&rows)[L]) {
  if constexpr (kSize < L) {
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i)
      if (!(i & kSize)) exchange_blocks<kSize>(rows[i], rows[i + kSize], typename CountLanes<L>::type{});
    transpose_blocks<2 * kSize>(rows);
  }
}

// What is moved as one: by its size.
template <int kBytes>
struct Moved;
template <>
struct Moved<4> {
  using type = float;
};
template <>
struct Moved<8> {
  using type = double;
};

// to (L, L; rows to_stride numbers apart) = the transpose of from (L, L; from_stride apart), of groups of kGroup
// numbers that stay together; L of them fill a vector.
template <class T, int kGroup>
static TEXTCLF_INLINE void transpose(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  using S = Simd<typename Moved<kGroup* int(sizeof(T))>::type>;
  constexpr int L = S::kLanes;
  typename S::V rows[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) __builtin_memcpy(&rows[i], from + i * from_stride, sizeof(rows[i]));
  transpose_blocks<1>(rows);
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) __builtin_memcpy(to + i * to_stride, &rows[i], sizeof(rows[i]));
}

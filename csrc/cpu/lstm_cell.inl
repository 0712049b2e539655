// The cell of an LSTM, a vector of units at a time.  Included once per instruction set, see simd.inl.  What it takes is
// counted in benchmarks/counts.py.
//
// sigmoid(x) = 1 / (1 + exp(-x)), and tanh(x) = m / (m + 2) with m = exp(2x) - 1, which is right to a few ulp near zero
// too.  A product of the two is one fraction: a cell takes three reciprocals, not five.
#pragma once

#include "simd.inl"

// It is computed in two stages, each for some rows: both are chains of dependent instructions, some 50 cycles long, and
// a core that looks 250 instructions ahead finds four of the first in them, but hardly three of whole cells.
template <class T>
struct Cell {
  using S = Simd<T>;
  using V = typename S::V;

  // From the gates before their non-linearity to c, and 1 + exp(-o) for the second stage.  Only what is used is
  // computed, once this is inlined.
  struct State {
    V i, f, g, c, one_o;
  };
  static TEXTCLF_INLINE State state(const V (&gates)[4], V c_before) {
    const V one_i = S::template exp<-1>(gates[0]).plus_one(), one_f = S::template exp<-1>(gates[1]).plus_one();
    const V m_g = S::template exp<2>(gates[2]).minus_one();
    State state;
    const V two_g = m_g + T(2);
    const V r_ig = reciprocal(one_i * two_g);
    state.i = two_g * r_ig;
    state.g = m_g * (one_i * r_ig);
    state.f = reciprocal(one_f);
    state.c = state.f * c_before + m_g * r_ig;
    state.one_o = S::template exp<-1>(gates[3]).plus_one();
    return state;
  }

  struct Output {
    V o, h;
  };
  static TEXTCLF_INLINE Output output(V c, V one_o) {
    const V m_c = S::template exp<2>(c).minus_one(), two_c = m_c + T(2);
    const V r_oc = reciprocal(one_o * two_c);
    return {two_c * r_oc, m_c * r_oc};
  }

  static TEXTCLF_INLINE V tanh(V x) {
    const V m = S::template exp<2>(x).minus_one();
    return m * reciprocal(m + T(2));
  }
};

// Its backward, from the gates after their non-linearity, tanh of c, and the gradients of h and of c, with what comes
// to c by way of h.  Functions, so that a gradient is computed where it is stored: all of them would not fit in
// registers.
template <class T>
struct CellGradients {
  using V = typename Simd<T>::V;
  V i, f, g, o, tanh_c, dh, dc;

  TEXTCLF_INLINE CellGradients(V i, V f, V g, V o, V tanh_c, V dh, V dc)
      : i(i), f(f), g(g), o(o), tanh_c(tanh_c), dh(dh), dc(dc + dh * o * (T(1) - tanh_c * tanh_c)) {}

  // Of the c before, and of the gates before their non-linearity.
  TEXTCLF_INLINE V by_c() const { return dc * f; }
  TEXTCLF_INLINE V by_i() const { return dc * g * i * (T(1) - i); }
  TEXTCLF_INLINE V by_f(V c_before) const { return dc * c_before * f * (T(1) - f); }
  TEXTCLF_INLINE V by_g() const { return dc * i * (T(1) - g * g); }
  TEXTCLF_INLINE V by_o() const { return dh * tanh_c * o * (T(1) - o); }
};

// The product of a step of the backward: grad_h = grad_gates W_hh.  Included once per instruction set, see simd.inl.
#pragma once

#include "tiles.inl"

// grad_h (R rows, of the matrix unit's `in_tile`, NV vectors of columns; rows are `stride` apart) = or += grad_gates
// (R, 4H) @ some rows of a panel of W_hh.
template <class T, int R, int NV>
static void multiply_gates_tile(const T* grad_gates, int64_t gates_stride, int64_t in_tile, const PanelRows<T>& w,
                                bool set, bool backwards, Accumulator<T>* grad_h, int64_t stride) {
  using S = Simd<Accumulator<T>>;
  const int64_t rows = R == MatrixUnit<T>::kRows ? in_tile : R;
  typename S::V acc[R][NV];
  multiply<T, R, NV, true>(acc, grad_gates + w.first, gates_stride, w, backwards);
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int n = 0; n < NV; ++n) {
      Accumulator<T>* to = grad_h + r * stride + n * S::kLanes;
      S::store(to, set ? acc[r][n] : S::load(to) + acc[r][n]);
    }
}

// Which of the H units a part takes, and how.
struct GatesProduct {
  int64_t hidden, unit, unit_end;
  bool backwards;      // from the end of W_hh on
  bool exceeds_cache;  // W_hh does
};

// grad_h (rows, P; `stride` apart, whole vectors) = grad_gates (rows, 4H) W_hh over the units [unit, unit_end).
// beside(row, rows, column, column_end) is called with each tile.
//
// A gate at a time: four sums of H terms each round less than one of 4H.  The matrix unit takes all units of all gates
// in one sum: its terms are products of bfloat16, which have 8 bits each.
//
// A tile of rows takes all gates from a panel that the second-level cache keeps.  Where W_hh is larger, all tiles take
// one, and then the next, which they ask for meanwhile (PanelAhead).
template <class T, class Beside>
static void multiply_gates(const GatesProduct& how, const T* grad_gates, int64_t gates_stride, int64_t rows,
                           const T* panels, int64_t stride, Accumulator<T>* grad_h, const Beside& beside) {
  constexpr int64_t L = Simd<T>::kLanes;
  const int64_t H = how.hidden, units = how.unit_end - how.unit;
  const bool one_by_one = how.exceeds_cache && kTileVectors == kGroup;  // the next is in one piece then
  const int64_t gates_a_pass = one_by_one ? 1 : kGates;
  PanelAhead<T> ahead;
  const auto tile = [&]<int R, int NV>(int64_t r, int64_t in_tile, int64_t column, int64_t pass) {
    if (pass == 0) beside(r, in_tile, column, column + NV * L);
    const auto add = [&](int64_t first, int64_t count, bool set) {
      multiply_gates_tile<T, R, NV>(grad_gates + r * gates_stride, gates_stride, in_tile,
                                    {panels + column * kGates * H, kGates * H, first, count, ahead.begin_tile()}, set,
                                    how.backwards, grad_h + r * stride + column, stride);
    };
    if (R == MatrixUnit<T>::kRows && units == H) {
      if (pass == 0) add(0, kGates * H, true);
      return;
    }
    for (int64_t i = pass; i < pass + gates_a_pass; ++i)
      add((how.backwards ? kGates - 1 - i : i) * H + how.unit, units, i == 0);
  };
  // What the matrix unit's tiles have to fill: all units of all gates, or where those of a part lie in each gate.
  const int64_t depth = units == H ? kGates * H : H | how.unit | how.unit_end;
  const int64_t width = (rows == 1 ? kOneRowGroups : 1) * kGroup * L, columns = divide_up(stride, width);
  for (int64_t i = 0; i < columns; ++i) {
    const int64_t column = (how.backwards ? columns - 1 - i : i) * width;
    for (int64_t pass = 0; pass < kGates; pass += gates_a_pass) {
      if (one_by_one) {
        const bool ends = pass + 1 == kGates;
        const int64_t next = !ends ? column : i + 1 < columns ? column + width : 0;  // or the next step's first
        const int64_t across = smaller(width, stride - next);
        ahead = {panels + next * kGates * H + ((ends ? 0 : pass + 1) * H + how.unit) * across, units * across,
                 units / Product<T>::kPair};
      }
      if (rows == 1)
        with_vectors<T, kOneRowGroups * kGroup>(stride - column,
                                                [&]<int NV>() { tile.template operator()<1, NV>(0, 1, column, pass); });
      else
        for_product_tiles<T>(rows, depth, [&]<int R>(int64_t r, int64_t n) {
          with_vectors<T>(stride - column, [&]<int NV>() { tile.template operator()<R, NV>(r, n, column, pass); });
        });
    }
  }
}

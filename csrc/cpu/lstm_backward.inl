// The backward of one direction of a layer.  Included once per instruction set, see simd.inl.
#pragma once

#include "team.inl"
#include "tiles.inl"

// The position before `row` in its direction's walk, or -1 where it starts from h0, c0.
static TEXTCLF_INLINE int64_t previous_position(const LstmShape& s, int64_t direction, int64_t t, int64_t row) {
  if (direction == 0) return t ? s.offsets[t - 1] + row : -1;
  return t + 1 < s.steps && row < s.batch_sizes[t + 1] ? s.offsets[t + 1] + row : -1;
}

// Gradients of one row's gates at one step, from those of its h (grad_h: what later steps and h_n ask) and c.
template <class T>
static void backward_cell(const LstmBackward<T>& p, int64_t direction, int64_t position, const T* c_before,
                          const T* grad_h, T* grad_c, int64_t first_unit, int64_t end_unit) {
  using S = Simd<T>;
  using V = typename S::V;
  const int64_t H = p.shape.hidden, n = direction * p.shape.positions + position;
  const T* saved = p.activations + n * kGates * H;
  T* grad_gates = p.grad_gates + n * kGates * H;
  const T* grad_output = p.grad_output ? p.grad_output + (position * p.shape.directions + direction) * H : nullptr;
  for (int64_t unit = first_unit; unit < end_unit; unit += S::kLanes) {
    const int64_t count = smaller(S::kLanes, H - unit);
    const V i = S::load_first(saved + unit, count), f = S::load_first(saved + H + unit, count);
    const V g = S::load_first(saved + 2 * H + unit, count), o = S::load_first(saved + 3 * H + unit, count);
    const V tanh_c = S::tanh(S::load_first(p.cells + n * H + unit, count));
    V dh = S::load(grad_h + unit);
    if (grad_output) dh += S::load_first(grad_output + unit, count);
    const V dc = S::load(grad_c + unit) + dh * o * (T(1) - tanh_c * tanh_c);
    S::store(grad_c + unit, dc * f);
    S::store_first(grad_gates + unit, dc * g * i * (T(1) - i), count);
    S::store_first(grad_gates + H + unit, dc * S::load_first(c_before + unit, count) * f * (T(1) - f), count);
    S::store_first(grad_gates + 2 * H + unit, dc * i * (T(1) - g * g), count);
    S::store_first(grad_gates + 3 * H + unit, dh * tanh_c * o * (T(1) - o), count);
  }
}

// grad_h (R rows, NV vectors of columns) = grad_gates (R, 4H) W_hh, a gate at a time: four sums of H terms each round
// less than one of 4H.
template <class T, int R, int NV>
static void backward_tile(const T* grad_gates, const T* panel, int64_t hidden, T* grad_h) {
  using S = Simd<T>;
  for (int64_t gate = 0; gate < kGates; ++gate) {
    typename S::V acc[R][NV] = {};
    multiply_add<T, R, NV>(acc, grad_gates + gate * hidden, kGates * hidden, panel + gate * hidden * NV * S::kLanes,
                           hidden);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int n = 0; n < NV; ++n) {
        T* to = grad_h + r * padded<T>(hidden) + n * S::kLanes;
        S::store(to, gate ? S::load(to) + acc[r][n] : acc[r][n]);
      }
  }
}

template <class T>
static void backward(const LstmBackward<T>& p, int64_t direction, const T* panels, T* scratch, const Team& team,
                     int64_t member) {
  constexpr int64_t L = Simd<T>::kLanes;
  const LstmShape& s = p.shape;
  const int64_t H = s.hidden, P = padded<T>(H), groups = backward_groups<T>(H);
  const int64_t state = direction * s.rows * H;
  T* grad_h = scratch;
  T* grad_c = scratch + s.rows * P;
  int64_t phase = 0;
  run_phase(team, member, phase++, [&](int64_t part) {
    if (part > 0) return;
    for (int64_t i = 0; i < 2 * s.rows * P; ++i) scratch[i] = T(0);
    if (p.grad_h_n) copy_rows(p.grad_h_n + state, H, grad_h, P, s.rows, H);
    if (p.grad_c_n) copy_rows(p.grad_c_n + state, H, grad_c, P, s.rows, H);
  });

  for (int64_t step = 0; step < s.steps; ++step) {
    const int64_t t = direction ? step : s.steps - 1 - step;
    const int64_t alive = s.batch_sizes[t], position = s.offsets[t];
    const auto cells = [&](const Share& share) {
      const int64_t end = smaller(share.block_end * kGroup * L, H);
      for (int64_t r = share.row; r < share.row_end; ++r) {
        const int64_t before = previous_position(s, direction, t, r);
        const T* c_before = before < 0 ? p.c0 + state + r * H : p.cells + (direction * s.positions + before) * H;
        backward_cell(p, direction, position + r, c_before, grad_h + r * P, grad_c + r * P, share.block * kGroup * L,
                      end);
      }
    };
    const auto product = [&](const Share& share) {
      for (int64_t group = share.block; group < share.block_end; ++group)
        for_tiles(share.row_end - share.row, [&]<int R>(int64_t r) {
          r += share.row;
          const int64_t column = group * kGroup * L;
          const T* a = p.grad_gates + (direction * s.positions + position + r) * kGates * H;
          const T* panel = panels + column * kGates * H;
          T* to = grad_h + r * P + column;
          with_vectors<T>(P - column, [&]<int NV>() { backward_tile<T, R, NV>(a, panel, H, to); });
        });
    };
    // By units, the product needs the other parts' gates: another phase.
    const bool two_phases = team.parts > 1 && !by_rows(team, alive, groups);
    run_phase(team, member, phase++, [&](int64_t part) {
      const Share share = share_step(team, part, alive, groups);
      cells(share);
      if (!two_phases) product(share);
    });
    if (two_phases)
      run_phase(team, member, phase++, [&](int64_t part) { product(share_step(team, part, alive, groups)); });
  }
  run_phase(team, member, phase++, [&](int64_t part) {
    if (part > 0) return;
    copy_rows(grad_h, P, p.grad_h0 + state, H, s.rows, H);
    copy_rows(grad_c, P, p.grad_c0 + state, H, s.rows, H);
  });
}

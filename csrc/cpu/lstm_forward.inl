// The forward of one direction of a layer.  Included once per instruction set, see simd.inl.
#pragma once

#include "lstm_cell.inl"
#include "team.inl"
#include "tiles.inl"

// h now, h next, c: each (rows, P)
template <class T>
static int64_t forward_scratch_bytes(const LstmShape& s) {
  const int64_t count = s.rows * padded<T>(s.hidden);
  return 2 * line_bytes<T>(count) + line_bytes<Accumulator<T>>(count);
}

// kBlocks blocks of kLanes units for R rows of a step: the product, the activations, the new c and h.
template <class T, int R, int kBlocks>
static void forward_tile(const LstmForward<T>& p, int64_t direction, int64_t position, int64_t first_block,
                         const T* panels, bool backwards, const T* h, T* h_next, Accumulator<T>* c) {
  using A = Accumulator<T>;
  using S = Simd<T>;
  using V = typename S::V;
  const int64_t H = p.shape.hidden, D = p.shape.directions, P = padded<T>(H);
  // The table's rows come from anywhere in it: asked for now, they are there when the product is done.
  const A* table[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const int64_t row = p.index ? p.index[position + r] : position + r;
    table[r] = p.gates + (direction * p.shape.gate_rows + row) * kGates * H;
#pragma GCC unroll 4
    for (int g = 0; g < kGates; ++g) __builtin_prefetch(table[r] + g * H + first_block * S::kLanes);
  }
  V acc[R][kBlocks * kGates] = {};
  const T* panel = panels + first_block * S::kLanes * kGates * H;
  if (R <= kFewRows && backwards)
    multiply_add<T, R, kBlocks * kGates, -1>(acc, h, P, {panel, H, 0, H});
  else
    multiply_add<T, R, kBlocks * kGates>(acc, h, P, {panel, H, 0, H});

#pragma GCC unroll 2
  for (int block = 0; block < kBlocks; ++block) {
    const int64_t unit = (first_block + block) * S::kLanes, count = smaller(S::kLanes, H - unit);
    // The table's half is added last: a sum that starts from it would round at its magnitude in every step.  `gates` is
    // a copy, so that the loop over cells may stay a loop (six of them unrolled are a lot of code) while acc stays in
    // registers.
    V gates[R][kGates];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int g = 0; g < kGates; ++g)
        gates[r][g] = acc[r][block * kGates + g] + Simd<A>::load_first(table[r] + g * H + unit, count);
#pragma GCC unroll 1
    for (int r = 0; r < R; ++r) {
      A* cell_state = c + r * P + unit;
      const Cell<A> cell = Cell<A>::forward(gates[r], Simd<A>::load(cell_state));
      Simd<A>::store(cell_state, cell.c);
      S::store(h_next + r * P + unit, cell.h);
      if (p.output) {
        const int64_t place = p.place ? p.place[position + r] : position + r;
        S::store_first(p.output + (place * D + direction) * H + unit, cell.h, count);
      }
      if (p.cells) {
        const int64_t n = direction * p.shape.positions + position + r;
        S::store_first(p.cells + n * H + unit, cell.c, count);
        if (!p.activations) continue;
        T* saved = p.activations + n * kGates * H + unit;
        S::store_first(saved, cell.i, count);
        S::store_first(saved + H, cell.f, count);
        S::store_first(saved + 2 * H, cell.g, count);
        S::store_first(saved + 3 * H, cell.o, count);
      }
    }
  }
}

template <class T>
static void forward(const LstmForward<T>& p, int64_t direction, const T* panels, char* scratch, const Team& team,
                    int64_t member) {
  constexpr int64_t L = Simd<T>::kLanes;
  const LstmShape& s = p.shape;
  const int64_t H = s.hidden, P = padded<T>(H), blocks = forward_blocks<T>(H);
  const int64_t state = direction * s.rows * H;  // where this direction starts in h0, c0, h_n, c_n
  T* const h0 = take<T>(scratch, s.rows * P);
  T* const h[2] = {h0, take<T>(scratch, s.rows * P)};
  auto* const c = take<Accumulator<T>>(scratch, s.rows * P);
  int64_t phase = 0;
  run_phase(team, member, phase++, [&](int64_t part) {
    if (part > 0) return;
    for (int64_t i = 0; i < s.rows * P; ++i) h[0][i] = h[1][i] = T{}, c[i] = 0;
    // Both halves start as h0: a row of the reverse direction comes alive at its own last step, and finds its h0.
    if (p.h0) {
      copy_rows(p.h0 + state, H, h[0], P, s.rows, H);
      copy_rows(p.h0 + state, H, h[1], P, s.rows, H);
    }
    if (p.c0) convert_rows(p.c0 + state, H, c, P, s.rows, H);
  });

  int now = 0;
  for (int64_t step = 0; step < s.steps; ++step) {
    const int64_t t = direction ? s.steps - 1 - step : step;
    const int64_t alive = s.batch_sizes[t], position = s.offsets[t];
    const bool backwards = s.rows <= kFewRows && t % 2;
    // Rows from here on end with this step.
    const int64_t going_on = step + 1 == s.steps ? 0 : direction ? alive : s.batch_sizes[t + 1];
    run_phase(team, member, phase++, [&](int64_t part) {
      const Share share = share_step(team, part, alive, blocks);
      const int64_t rows = share.row_end - share.row, span = share.block_end - share.block;
      const auto tile = [&]<int R, int kBlocks>(int64_t r, int64_t i) {
        const int64_t block = backwards ? share.block_end - kBlocks - i : share.block + i;
        r += share.row;
        forward_tile<T, R, kBlocks>(p, direction, position + r, block, panels, backwards, h[now] + r * P,
                                    h[1 - now] + r * P, c + r * P);
      };
      int64_t i = 0;
      if (rows == 1)
        for (; i + kOneRowGroups <= span; i += kOneRowGroups) tile.template operator()<1, kOneRowGroups>(0, i);
      for (; i < span; ++i) for_tiles(rows, [&]<int R>(int64_t r) { tile.template operator()<R, 1>(r, i); });
      const int64_t unit = share.block * L, units = smaller(share.block_end * L, H) - unit;
      for (int64_t r = share.row > going_on ? share.row : going_on; r < share.row_end; ++r) {
        __builtin_memcpy(p.h_n + state + r * H + unit, h[1 - now] + r * P + unit, units * sizeof(T));
        convert_rows(c + r * P + unit, P, p.c_n + state + r * H + unit, H, 1, units);
      }
    });
    now = 1 - now;
  }
}

// The forward of one direction of a layer.  Included once per instruction set, see simd.inl.
#pragma once

#include "lstm_cell.inl"
#include "lstm_projection.inl"
#include "team.inl"
#include "tiles.inl"

// h now, h next; c; the cells' output where h is projected from it: each with its rows padded to whole vectors
template <class T>
static int64_t forward_scratch_bytes(const LstmShape& s) {
  const int64_t rows = s.rows + kRowsBeyond<T>, stride = padded<T>(s.hidden);
  return 2 * line_bytes<T>(rows * padded<T>(s.width())) + line_bytes<Accumulator<T>>(s.rows * stride) +
         (s.projected ? line_bytes<T>(rows * stride) : 0);
}

// The input's numbers are summed in runs of this many: short sums round less.
constexpr int64_t kInputRun = 32;

// sum (R rows of x, NV vectors) = x W_ih^T, from a panel of `depth` rows that has W_ih's from row `first` on.
template <class T, int R, int NV>
static TEXTCLF_INLINE void multiply_input(typename Simd<T>::V (&sum)[R][NV], const T* x, int64_t input, const T* panel,
                                          int64_t depth, int64_t first, bool backwards = false) {
  multiply<T>(sum, x, input, {panel, depth, first, smaller(kInputRun, input)}, backwards);
  for (int64_t k = kInputRun; k < input; k += kInputRun) {
    typename Simd<T>::V acc[R][NV];
    multiply<T>(acc, x + k, input, {panel, depth, first + k, smaller(kInputRun, input - k)}, backwards);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) sum[r][n] += acc[r][n];
  }
}

// A store waits for its line, and those behind it wait as well: a tile's, each in another line of memory beyond the
// second-level cache, took 60 ns each on an Ice Lake.  Where a call writes as much as this, a tile asks for its lines
// before its product: projections are 1.14 times as fast, a training step of B = 32, T = 256 and H = 128 is 1.06 times.
// Less stays in that cache, and to ask takes 2 to 4 %.
constexpr int64_t kFarBytes = int64_t(1) << 22;

template <class T>
static bool writes_far(const LstmForward<T>& p) {
  const int64_t numbers = (p.output ? p.shape.width() : 0) + (p.activations ? (kGates + 1) * p.shape.hidden : 0);
  return p.shape.positions * numbers * int64_t(sizeof(T)) >= kFarBytes;
}

// For what forward_tile writes of a position, from `unit` on, a vector of each kind.
template <class T, bool kProjected>
static TEXTCLF_INLINE void ask_to_write(const LstmForward<T>& p, int64_t direction, int64_t position, int64_t unit) {
  const int64_t H = p.shape.hidden, n = direction * p.shape.positions + position;
  if (!kProjected && p.output) {
    const int64_t place = p.place ? p.place[position] : position;
    __builtin_prefetch(p.output + (place * p.shape.directions + direction) * H + unit, 1);
  }
  if (!p.activations) return;
  __builtin_prefetch(p.cells + n * H + unit, 1);
#pragma GCC unroll 4
  for (int g = 0; g < kGates; ++g) __builtin_prefetch(p.activations + (n * kGates + g) * H + unit, 1);
}

// Rows [row, row_end) of the table of gates, from those of x.  A block's panel of W_ih, at I = 100 and 8 lanes 13 kB,
// is read for some tiles of rows while it is in the first-level cache.
template <class T>
static void project_input(const LstmForward<T>& p, int64_t direction, const T* panels, int64_t row, int64_t row_end) {
  using S = Simd<T>;
  using A = Accumulator<T>;
  const int64_t H = p.shape.hidden, I = p.shape.input, depth = H + I;
  const bool far = p.shape.gate_rows * kGates * H * int64_t(sizeof(A)) >= kFarBytes;
  constexpr int64_t kRows = 4 * kTileRows;
  for (; row < row_end; row += kRows)
    for (int64_t block = 0; block < forward_blocks<T>(H); ++block) {
      const int64_t unit = block * S::kLanes, count = smaller(S::kLanes, H - unit);
      const T* const panel = panels + unit * kGates * depth;
      for_tiles(smaller(kRows, row_end - row), [&]<int R>(int64_t r) {
        for (int64_t gate = 0; gate < kGates; gate += kTileVectors) {  // a stream of the panel
          A* const to = p.projected_x + ((direction * p.shape.gate_rows + row + r) * kGates + gate) * H + unit;
          if (far)
#pragma GCC unroll 8
            for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
              for (int g = 0; g < kTileVectors; ++g) __builtin_prefetch(to + (i * kGates + g) * H, 1);
          typename S::V acc[R][kTileVectors];
          multiply_input<T>(acc, p.x + (row + r) * I, I, panel + gate * S::kLanes * depth, depth, H);
#pragma GCC unroll 4
          for (int g = 0; g < kTileVectors; ++g) {
            typename S::V bias = {};
            if (p.bias) bias = Simd<A>::load_first(p.bias + (direction * kGates + gate + g) * H + unit, count);
#pragma GCC unroll 8
            for (int i = 0; i < R; ++i) Simd<A>::store_first(to + (i * kGates + g) * H, acc[i][g] + bias, count);
          }
        }
      });
    }
}

// kBlocks blocks of kLanes units for R rows of a step, of the matrix unit's for `in_tile` of them: the product, the
// activations, the new c and the cell's output m, which is h where it is not projected.
// kInput: the input half of the gates is computed here, too, from x.  far: what is written is, see writes_far.
template <class T, int R, int kBlocks, bool kProjected, bool kInput, class F>
static void forward_tile(const LstmForward<T>& p, int64_t direction, int64_t position, int64_t in_tile,
                         int64_t first_block, const T* panels, const ProductOrder<T, F>& order, bool far, const T* h,
                         T* m, Accumulator<T>* c) {
  using A = Accumulator<T>;
  using S = Simd<T>;
  using V = typename S::V;
  const int64_t H = p.shape.hidden, D = p.shape.directions, stride = padded<T>(H);
  const int64_t P = kProjected ? p.shape.projected : H, h_stride = kProjected ? padded<T>(P) : stride;
  const int64_t depth = P + p.shape.input;
  constexpr bool kMatrix = R == MatrixUnit<T>::kRows;
  const int64_t rows = kMatrix ? in_tile : R;
  const T* const panel = panels + first_block * S::kLanes * kGates * depth;
  if (R > kFewRows && !kInput && far)
    for (int r = 0; r < rows; ++r) ask_to_write<T, kProjected>(p, direction, position + r, first_block * S::kLanes);
  V acc[R][kBlocks * kGates], from_x[kInput ? R : 1][kBlocks * kGates];
  const A* table[R];
  if constexpr (kInput) {
    multiply_input<T>(from_x, p.x + position * p.shape.input, p.shape.input, panel, depth, P, order.backwards);
  } else {
    // The table's rows come from anywhere in it: asked for now, they are there when the product is done.
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const int64_t row = p.index ? p.index[position + r] : position + r;
      table[r] = p.gates + (direction * p.shape.gate_rows + row) * kGates * H;
#pragma GCC unroll 4
      for (int g = 0; g < kGates; ++g) __builtin_prefetch(table[r] + g * H + first_block * S::kLanes);
    }
  }
  if constexpr (R <= kFewRows)
    multiply_halves<T>(acc, h, h_stride, {panel, depth, 0, order.terms}, order);
  else  // beside from_x there are no registers left for two ways: with both, the sums of either lay in memory
    multiply<T, R, kBlocks * kGates, !kInput>(acc, h, h_stride, {panel, depth, 0, order.terms, order.ahead});

  // What the second stage of the cells takes from the first.
  V c_next[kBlocks][R], one_o[kBlocks][R];
#pragma GCC unroll 2
  for (int block = 0; block < kBlocks; ++block) {
    const int64_t unit = (first_block + block) * S::kLanes, count = smaller(S::kLanes, H - unit);
    // The input's half is added last: a sum that starts from it would round at its magnitude in every step.
    const auto add_input = [&](int r, V(&to)[kGates]) {
#pragma GCC unroll 4
      for (int g = 0; g < kGates; ++g) {
        V half;
        if constexpr (kInput) {
          half = from_x[r][block * kGates + g];
          if (p.bias) half += Simd<A>::load_first(p.bias + (direction * kGates + g) * H + unit, count);
        } else {
          half = Simd<A>::load_first(table[r] + g * H + unit, count);
        }
        to[g] = acc[r][block * kGates + g] + half;
      }
    };
    // `gates` is a copy, so that the loop over cells may stay a loop (six of them unrolled are a lot of code) while acc
    // stays in registers; the matrix unit's sums come in memory.
    V gates[kMatrix ? 1 : R][kGates];
    if constexpr (!kMatrix) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) add_input(r, gates[r]);
    }
#pragma GCC unroll 1
    for (int r = 0; r < rows; ++r) {
      if (kMatrix) add_input(r, gates[0]);
      A* cell_state = c + r * stride + unit;
      const auto state = Cell<A>::state(gates[kMatrix ? 0 : r], Simd<A>::load(cell_state));
      Simd<A>::store(cell_state, state.c);
      c_next[block][r] = state.c, one_o[block][r] = state.one_o;
      if (p.cells) {
        const int64_t n = direction * p.shape.positions + position + r;
        S::store_first(p.cells + n * H + unit, state.c, count);
        if (!p.activations) continue;
        T* saved = p.activations + n * kGates * H + unit;
        S::store_first(saved, state.i, count);
        S::store_first(saved + H, state.f, count);
        S::store_first(saved + 2 * H, state.g, count);
      }
    }
  }
#pragma GCC unroll 2
  for (int block = 0; block < kBlocks; ++block) {
    const int64_t unit = (first_block + block) * S::kLanes, count = smaller(S::kLanes, H - unit);
#pragma GCC unroll 1
    for (int r = 0; r < rows; ++r) {
      const auto cell = Cell<A>::output(c_next[block][r], one_o[block][r]);
      S::store(m + r * stride + unit, cell.h);
      if (!kProjected && p.output) {
        const int64_t place = p.place ? p.place[position + r] : position + r;
        S::store_first(p.output + (place * D + direction) * H + unit, cell.h, count);
        if (p.packed_output)
          S::store_first(p.packed_output + ((position + r) * D + direction) * H + unit, cell.h, count);
      }
      if (p.activations)
        S::store_first(p.activations + ((direction * p.shape.positions + position + r) * kGates + 3) * H + unit, cell.o,
                       count);
    }
  }
}

template <class T, bool kProjected, bool kInput>
static void forward_steps(const LstmForward<T>& p, int64_t direction, const T* panels, char* scratch, const Team& team,
                          int64_t member) {
  constexpr int64_t L = Simd<T>::kLanes;
  const LstmShape& s = p.shape;
  const int64_t H = s.hidden, stride = padded<T>(H), blocks = forward_blocks<T>(H);
  const int64_t P = kProjected ? s.projected : H, h_stride = padded<T>(P);
  // Where this direction starts in h0 and h_n, c0 and c_n.
  const int64_t h_state = direction * s.rows * P, c_state = direction * s.rows * H;
  const int64_t rows_taken = s.rows + kRowsBeyond<T>;
  T* const h0 = take<T>(scratch, rows_taken * h_stride);
  T* const h[2] = {h0, take<T>(scratch, rows_taken * h_stride)};  // even steps read the first and write the second
  auto* const c = take<Accumulator<T>>(scratch, s.rows * stride);
  T* const unprojected = kProjected ? take<T>(scratch, rows_taken * stride) : nullptr;
  const T* const w_hr_panels = panels + kGates * (P + s.input) * stride;
  const int64_t groups = column_groups<T>(P);

  const auto time = [&](int64_t step) { return direction ? s.steps - 1 - step : step; };
  const auto alive_at = [&](int64_t step) { return s.batch_sizes[time(step)]; };
  // Parts that share a step by rows project theirs at once; by units, once the others' are there.
  const auto rows_shared = [&](int64_t alive) { return team.parts == 1 || by_rows(team, alive, blocks); };
  // Few rows, of vectors, may multiply h in halves, that of the first of two parts' units and that of the second's: a
  // part begins with its own, while the other's are on their way.  Not by the rows of a tile: a row has the same bits
  // in each.  Only where a step is short: to read a panel in pieces costs up to 4 % at H = 512, and gains nothing
  // there.
  const bool in_halves = s.rows <= kFewRows && (!kHasMatrixUnit<T> || s.rows < MatrixUnit<T>::kLeastRows) &&
                         kGates * H * P * int64_t(sizeof(T)) <= kShortStep;
  const int64_t split = in_halves ? forward_blocks<T>(P) / 2 * L : 0;
  const bool asks_ahead = !kInput && team.exceeds_cache && (kTileVectors == kGates || !s.input);  // next: in one piece
  const bool far = writes_far(p);
  const bool linked = !kProjected && in_halves && team.parts == 2 && !rows_shared(1) && !rows_shared(s.rows);

  Member me{member};
  int64_t phase = 0;
  run_phase(team, me, phase++, [&](int64_t part) {
    if constexpr (!kProjected)
      if (p.projected_x)
        project_input(p, direction, panels, s.gate_rows * part / team.parts, s.gate_rows * (part + 1) / team.parts);
    if (part > 0) return;
    for (int64_t i = 0; i < s.rows * h_stride; ++i) h[0][i] = h[1][i] = T{};
    for (int64_t i = 0; i < s.rows * stride; ++i) c[i] = 0;
    // Both start as h0: a row of the reverse direction comes alive at its own last step, and finds its h0.
    if (p.h0) {
      copy_rows(p.h0 + h_state, P, h[0], h_stride, s.rows, P);
      copy_rows(p.h0 + h_state, P, h[1], h_stride, s.rows, P);
    }
    if (p.c0) convert_rows(p.c0 + c_state, H, c, stride, s.rows, H);
  });

  // Rows from here on start with the step, and from zero: W_hh adds nothing then.  One product in 21 of a film review's
  // is spared, and of a call's at B = 32 and T = 8, one in 8.
  const bool from_zero = !p.h0 || all_zero(p.h0 + h_state, s.rows * P);
  const auto zero_from = [&](int64_t step) {
    return !from_zero ? s.rows : step == 0 ? 0 : direction ? alive_at(step - 1) : s.rows;
  };
  // Rows from here on end with the step.
  const auto going_on_after = [&](int64_t step) {
    return step + 1 == s.steps ? 0 : direction ? alive_at(step) : alive_at(step + 1);
  };
  const auto project = [&](int64_t step, const Share& share) {
    project_rows(p, direction, s.offsets[time(step)], share, going_on_after(step), w_hr_panels, unprojected,
                 h[(step + 1) % 2]);
  };

  // What a part does in a step; `between`, of few rows, between the two halves of its first product.
  const auto walk = [&](int64_t part, int64_t step, const auto& between) {
    const int64_t t = time(step), alive = s.batch_sizes[t], position = s.offsets[t], going_on = going_on_after(step);
    const int64_t zero = zero_from(step);
    const bool backwards = s.rows <= kFewRows && t % 2;
    const T* const h_now = h[step % 2];
    T* const m = kProjected ? unprojected : h[(step + 1) % 2];
    const Share share = share_step(team, part, alive, blocks);
    const int64_t rows = share.row_end - share.row, span = share.block_end - share.block;
    PanelAhead<T> ahead;
    const auto tile = [&]<int R, int kBlocks>(int64_t r, int64_t in_tile, int64_t i) {
      const int64_t block = backwards ? share.block_end - kBlocks - i : share.block + i;
      r += share.row;
      // The first tile begins with the part's own half of h.  The last one ends with it: that is what the next step's
      // first tile finds in the nearest cache.
      const bool begins = i == 0, ends = i + kBlocks == span;
      const bool second_first = linked && begins ? part == 1 : linked && ends ? part == 0 : backwards;
      const auto between_first = [&] {
        if (begins) between();
      };
      const int64_t terms = r < zero ? P : 0;
      const ProductOrder order{
          terms,        asks_ahead ? ahead.begin_tile() : nullptr, smaller(split, terms), second_first, backwards,
          between_first};
      forward_tile<T, R, kBlocks, kProjected, kInput>(p, direction, position + r, in_tile, block, panels, order, far,
                                                      h_now + r * h_stride, m + r * stride, c + r * stride);
    };
    int64_t i = 0;
    const auto side_by_side = [&]<int R, int kBlocks>() {
      if constexpr (kBlocks > 1)
        if (rows == R)
          for (; i + kBlocks <= span; i += kBlocks) tile.template operator()<R, kBlocks>(0, R, i);
    };
    side_by_side.template operator()<1, kOneRowGroups>();
    side_by_side.template operator()<2, kHasMatrixUnit<T> ? 1 : kTwoRowGroups>();
    for (; i < span; ++i) {
      if (asks_ahead) {
        const int64_t next = share.block + (i + 1 < span ? i + 1 : 0);  // after the last one, the next step's first
        ahead = {panels + next * L * kGates * (P + s.input), L * kGates * P, P / Product<T>::kPair};
      }
      for_product_tiles<T>(rows, P, [&]<int R>(int64_t r, int64_t n) { tile.template operator()<R, 1>(r, n, i); });
    }
    const int64_t unit = share.block * L, units = smaller(share.block_end * L, H) - unit;
    for (int64_t r = share.row > going_on ? share.row : going_on; r < share.row_end; ++r) {
      if (!kProjected) __builtin_memcpy(p.h_n + h_state + r * H + unit, m + r * stride + unit, units * sizeof(T));
      convert_rows(c + r * stride + unit, stride, p.c_n + c_state + r * H + unit, H, 1, units);
    }
    if (kProjected && rows_shared(alive)) project(step, {share.row, share.row_end, 0, groups});
  };

  if (linked) return LinkedSteps<decltype(walk)>{team, me, phase, walk}(s.steps);
  for (int64_t step = 0; step < s.steps;) {
    const int64_t alive = alive_at(step);
    const bool alone = rows_shared(alive);
    const int64_t end = alone ? end_of_steps_alone(alive_at, step, s.steps) : step + 1;
    run_phase(team, me, phase++, [&](int64_t part) {
      for (int64_t i = step; i < end; ++i) walk(part, i, [] {});
    });
    if (kProjected && !alone)
      run_phase(team, me, phase++, [&](int64_t part) {
        project(step, {0, alive, groups * part / team.parts, groups * (part + 1) / team.parts});
      });
    step = end;
  }
}

template <class T>
static void forward(const LstmForward<T>& p, int64_t direction, const T* panels, char* scratch, const Team& team,
                    int64_t member) {
  [[maybe_unused]] const typename MatrixUnit<T>::Use matrix_unit;
  auto* steps = p.shape.projected ? forward_steps<T, true, false> : forward_steps<T, false, false>;
  if constexpr (sizeof(T) == sizeof(Accumulator<T>))
    if (p.x && !p.projected_x) steps = forward_steps<T, false, true>;  // no projection of h beside it
  steps(p, direction, panels, scratch, team, member);
}

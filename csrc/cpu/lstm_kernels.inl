// Forward and backward of one direction of an LSTM layer.  Included once per instruction set, see simd.inl.
//
// Both walk the steps one by one and, in a step, multiply a few rows (a tile) by a packed panel of W_hh:
//   forward:  gates (rows, 4H) = table rows + h (rows, H) W_hh^T; a panel holds the four gates of kLanes units, so that
//   the
//             tile's accumulators are just what the cell needs: its activations follow without another pass;
//   backward: grad_h (rows, H) = grad_gates (rows, 4H) W_hh; a panel holds up to four vectors of columns.
// kTileRows is the register budget: kTileRows * 4 accumulators + 4 vectors of W + 1 broadcast.
//
// h and c live in scratch with rows padded to whole vectors (P = H rounded up to kLanes); padding lanes of the panels
// are zero, and what the padding lanes of h and c hold is never read back into a real lane.

#include "simd.inl"

constexpr int64_t kFewRows = 2;  // a thread, see share_step
constexpr int64_t kSpins = 2000;
static TEXTCLF_INLINE void spin_pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

static TEXTCLF_INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static TEXTCLF_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <class T>
static TEXTCLF_INLINE int64_t padded(int64_t hidden) {
  return divide_up(hidden, Simd<T>::kLanes) * Simd<T>::kLanes;
}

// ---- Panels ------------------------------------------------------------------------------------

constexpr int64_t kGates = 4;
constexpr int64_t kGroup = 4;  // vectors of columns in a backward panel

template <class T>
static int64_t forward_blocks(int64_t hidden) {
  return divide_up(hidden, Simd<T>::kLanes);
}
template <class T>
static int64_t forward_panel_size(int64_t hidden) {
  return kGates * hidden * padded<T>(hidden);
}

// panels: (blocks, H, 4, kLanes)
template <class T>
static void pack_forward(const T* w_hh, int64_t hidden, int64_t begin, int64_t end, T* panels) {
  constexpr int64_t L = Simd<T>::kLanes;
  for (int64_t block = begin; block < end; ++block) {
    T* panel = panels + block * hidden * kGates * L;
    const int64_t units = smaller(L, hidden - block * L);
    for (int64_t gate = 0; gate < kGates; ++gate)
      for (int64_t lane = 0; lane < L; ++lane) {
        T* to = panel + gate * L + lane;
        if (lane < units) {
          const T* from = w_hh + (gate * hidden + block * L + lane) * hidden;
          for (int64_t k = 0; k < hidden; ++k) to[k * kGates * L] = from[k];
        } else {
          for (int64_t k = 0; k < hidden; ++k) to[k * kGates * L] = T(0);
        }
      }
  }
}

template <class T>
static int64_t backward_groups(int64_t hidden) {
  return divide_up(hidden, kGroup * Simd<T>::kLanes);
}
template <class T>
static int64_t backward_panel_size(int64_t hidden) {
  return kGates * hidden * padded<T>(hidden);
}

// panels: a group of up to 4 vectors of columns after the other, each (4H, vectors, kLanes)
template <class T>
static void pack_backward(const T* w_hh, int64_t hidden, int64_t begin, int64_t end, T* panels) {
  constexpr int64_t L = Simd<T>::kLanes;
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first = group * kGroup * L;
    const int64_t width = smaller(kGroup * L, padded<T>(hidden) - first);
    const int64_t columns = smaller(width, hidden - first);
    T* panel = panels + first * kGates * hidden;
    for (int64_t k = 0; k < kGates * hidden; ++k) {
      T* to = panel + k * width;
      const T* from = w_hh + k * hidden + first;
      for (int64_t j = 0; j < columns; ++j) to[j] = from[j];
      for (int64_t j = columns; j < width; ++j) to[j] = T(0);
    }
  }
}

// ---- The product -------------------------------------------------------------------------------

// acc (R, NV vectors) += a (R rows of `depth`, `stride` apart) @ panel (depth, NV vectors)
template <class T, int R, int NV>
static TEXTCLF_INLINE void multiply_add(typename Simd<T>::V (&acc)[R][NV], const T* a, int64_t stride, const T* panel,
                                        int64_t depth) {
  using S = Simd<T>;
  for (int64_t k = 0; k < depth; ++k, panel += NV * S::kLanes) {
    typename S::V w[NV];
#pragma GCC unroll 4
    for (int n = 0; n < NV; ++n) w[n] = S::load(panel + n * S::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T x = a[r * stride + k];
#pragma GCC unroll 4
      for (int n = 0; n < NV; ++n) acc[r][n] += w[n] * x;
    }
  }
}

// Cuts `rows` into tiles of kTileRows or less, as even as can be (7 rows in tiles of at most 6 are 4 + 3, not 6 + 1: a
// tile of one row waits for W_hh instead of computing), and calls tile(integral row count, first row).
template <int R, class F>
static TEXTCLF_INLINE void run_tile(int64_t rows, int64_t first, const F& tile) {
  if constexpr (R == 1) {
    tile.template operator()<1>(first);
  } else {
    if (rows == R)
      tile.template operator()<R>(first);
    else
      run_tile<R - 1>(rows, first, tile);
  }
}
template <class F>
static TEXTCLF_INLINE void for_tiles(int64_t rows, const F& tile) {
  const int64_t tiles = divide_up(rows, kTileRows);
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t first = rows * i / tiles;
    run_tile<kTileRows>(rows * (i + 1) / tiles - first, first, tile);
  }
}

// Calls f<number of vectors>() for the next group of at most kGroup vectors out of `columns` padded columns.
template <class T, class F>
static TEXTCLF_INLINE void with_vectors(int64_t columns, const F& f) {
  switch (smaller(kGroup, columns / Simd<T>::kLanes)) {
    case 1:
      return f.template operator()<1>();
    case 2:
      return f.template operator()<2>();
    case 3:
      return f.template operator()<3>();
    default:
      return f.template operator()<4>();
  }
}

// ---- Teams ------------------------------------------------------------------------------------

// Runs the parts of one phase of a team's job, see Team.  Builtins, as no std function may be compiled here (simd.inl).
template <class F>
static TEXTCLF_INLINE void run_phase(const Team& team, int64_t member, int64_t phase, const F& run) {
  if (team.parts == 1) return run(0);
  for (int64_t i = 0; i < team.parts; ++i) {
    const int64_t part = (member + i) % team.parts;
    int64_t expected = phase;
    if (!__atomic_compare_exchange_n(&team.claimed[part * Team::kStride], &expected, phase + 1, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
      continue;
    run(part);
    __atomic_fetch_add(team.done, 1, __ATOMIC_RELEASE);
  }
  // A step takes some microseconds; a thread that waits much longer shares its core with someone: let them run.
  for (int64_t spins = 0; __atomic_load_n(team.done, __ATOMIC_ACQUIRE) < (phase + 1) * team.parts; ++spins)
    if (spins < kSpins)
      spin_pause();
    else
      sched_yield();
}

// A part of a step: rows [row, row_end) and units (or whatever a backward panel group holds) [block, block_end).
struct Share {
  int64_t row, row_end, block, block_end;
};

// With enough rows each thread takes some, for all units.  With one or two rows a thread, a step is bound by reading
// W_hh, so each thread takes some units, for all rows, and reads that part of W_hh.  Measured on two threads at H = 64
// to 512: units are 1.0 to 1.7 times as fast up to 4 rows, rows are as fast or faster from 8 on.
static TEXTCLF_INLINE bool by_rows(const Team& team, int64_t alive) { return alive > kFewRows * team.parts; }
static TEXTCLF_INLINE Share share_step(const Team& team, int64_t part, int64_t alive, int64_t blocks) {
  if (by_rows(team, alive)) return {alive * part / team.parts, alive * (part + 1) / team.parts, 0, blocks};
  return {0, alive, blocks * part / team.parts, blocks * (part + 1) / team.parts};
}

// ---- Forward -----------------------------------------------------------------------------------

// h now, h next, c: each (rows, P)
template <class T>
static int64_t scratch_size(int64_t rows, int64_t hidden) {
  return 3 * rows * padded<T>(hidden);
}

template <class T>
static TEXTCLF_INLINE void copy_rows(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows,
                                     int64_t count) {
  for (int64_t r = 0; r < rows; ++r) __builtin_memcpy(to + r * to_stride, from + r * from_stride, count * sizeof(T));
}

// One block of kLanes units for R rows of a step: the product, the activations, the new c and h.
template <class T, int R>
static void forward_tile(const LstmForward<T>& p, int64_t direction, int64_t position, int64_t block, const T* panels,
                         const T* h, T* h_next, T* c) {
  using S = Simd<T>;
  using V = typename S::V;
  const int64_t H = p.shape.hidden, D = p.shape.directions, P = padded<T>(H);
  const int64_t unit = block * S::kLanes, count = smaller(S::kLanes, H - unit);
  // The table's rows come from anywhere in it: asked for now, they are there when the product is done.
  const T* table[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const int64_t row = p.index ? p.index[position + r] : position + r;
    table[r] = p.gates + (direction * p.shape.gate_rows + row) * kGates * H + unit;
#pragma GCC unroll 4
    for (int g = 0; g < kGates; ++g) __builtin_prefetch(table[r] + g * H);
  }
  V acc[R][kGates] = {};
  multiply_add<T, R, kGates>(acc, h, P, panels + unit * kGates * H, H);

  // The table's half is added last: a sum that starts from it would round at its magnitude in every step.  `gates` is a
  // copy, so that the loop over cells may stay a loop (six of them unrolled are a lot of code) while acc stays in
  // registers.
  V gates[R][kGates];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int g = 0; g < kGates; ++g) gates[r][g] = acc[r][g] + S::load_first(table[r] + g * H, count);
#pragma GCC unroll 1
  for (int r = 0; r < R; ++r) {
    const V i = S::sigmoid(gates[r][0]), f = S::sigmoid(gates[r][1]);
    const V g = S::tanh(gates[r][2]), o = S::sigmoid(gates[r][3]);
    T* cell = c + r * P + unit;
    const V c_new = f * S::load(cell) + i * g;
    const V h_new = o * S::tanh(c_new);
    S::store(cell, c_new);
    S::store(h_next + r * P + unit, h_new);
    if (p.output) S::store_first(p.output + ((position + r) * D + direction) * H + unit, h_new, count);
    if (p.activations) {
      const int64_t n = direction * p.shape.positions + position + r;
      T* saved = p.activations + n * kGates * H + unit;
      S::store_first(saved, i, count);
      S::store_first(saved + H, f, count);
      S::store_first(saved + 2 * H, g, count);
      S::store_first(saved + 3 * H, o, count);
      S::store_first(p.cells + n * H + unit, c_new, count);
    }
  }
}

template <class T>
static void forward(const LstmForward<T>& p, int64_t direction, const T* panels, T* scratch, const Team& team,
                    int64_t member) {
  constexpr int64_t L = Simd<T>::kLanes;
  const LstmShape& s = p.shape;
  const int64_t H = s.hidden, P = padded<T>(H), blocks = forward_blocks<T>(H);
  const int64_t state = direction * s.rows * H;  // where this direction starts in h0, c0, h_n, c_n
  T* h[2] = {scratch, scratch + s.rows * P};
  T* c = scratch + 2 * s.rows * P;
  int64_t phase = 0;
  run_phase(team, member, phase++, [&](int64_t part) {
    if (part > 0) return;
    for (int64_t i = 0; i < scratch_size<T>(s.rows, H); ++i) scratch[i] = T(0);
    // Both halves start as h0: a row of the reverse direction comes alive at its own last step, and finds its h0.
    copy_rows(p.h0 + state, H, h[0], P, s.rows, H);
    copy_rows(p.h0 + state, H, h[1], P, s.rows, H);
    copy_rows(p.c0 + state, H, c, P, s.rows, H);
  });

  int now = 0;
  for (int64_t step = 0; step < s.steps; ++step) {
    const int64_t t = direction ? s.steps - 1 - step : step;
    const int64_t alive = s.batch_sizes[t], position = s.offsets[t];
    // Rows from here on end with this step.
    const int64_t going_on = step + 1 == s.steps ? 0 : direction ? alive : s.batch_sizes[t + 1];
    run_phase(team, member, phase++, [&](int64_t part) {
      const Share share = share_step(team, part, alive, blocks);
      for (int64_t block = share.block; block < share.block_end; ++block)
        for_tiles(share.row_end - share.row, [&]<int R>(int64_t r) {
          r += share.row;
          forward_tile<T, R>(p, direction, position + r, block, panels, h[now] + r * P, h[1 - now] + r * P, c + r * P);
        });
      const int64_t unit = share.block * L, units = smaller(share.block_end * L, H) - unit;
      for (int64_t r = share.row > going_on ? share.row : going_on; r < share.row_end; ++r) {
        __builtin_memcpy(p.h_n + state + r * H + unit, h[1 - now] + r * P + unit, units * sizeof(T));
        __builtin_memcpy(p.c_n + state + r * H + unit, c + r * P + unit, units * sizeof(T));
      }
    });
    now = 1 - now;
  }
}

// ---- Backward ----------------------------------------------------------------------------------

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
    const bool two_phases = team.parts > 1 && !by_rows(team, alive);
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

// ---- Gradient of W_hh --------------------------------------------------------------------------

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

template <class T>
static KernelTable<T> kernel_table() {
  return {forward_panel_size<T>, forward_blocks<T>,
          pack_forward<T>,       backward_panel_size<T>,
          backward_groups<T>,    pack_backward<T>,
          scratch_size<T>,       forward<T>,
          backward<T>,           weight_grad_scratch_size<T>,
          weight_grad<T>};
}

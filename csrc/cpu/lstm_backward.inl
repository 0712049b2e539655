// The backward of one direction of a layer.  Included once per instruction set, see simd.inl.
//
// The steps are walked against the forward's order, in chunks: first the gradients of the gates, step by step, then
// what they add to the gradients of W_hh, W_hr and the gate table (chunk_grads.inl).
#pragma once

#include "chunk_grads.inl"
#include "flush_denormals.inl"
#include "gates_product.inl"
#include "lstm_cell.inl"
#include "lstm_projection.inl"
#include "panels.inl"
#include "team.inl"
#include "tiles.inl"

// What the steps pass on, for each row: the gradient of c, and that of h as one partial sum, or as one of every part
// where the parts share a step by units (each multiplies its own units' gates).  Two sets of sums: a step reads one and
// writes the other.
template <class T>
struct BackwardState {
  using A = Accumulator<T>;
  int64_t rows, stride, h_stride;  // rows padded to whole vectors
  A* grad_c;                       // (B, H)
  A* grad_m;                       // (B, H), of the cell's output, where h is projected: for one step
  A* sums;                         // of (B, P)
  int64_t parts;                   // sums in a set
  int64_t valid = 0;               // of them, written by the last step
  int64_t set = 0;                 // the one to be read
  int64_t walked = 0;              // rows that have come alive

  // After a step of `alive` rows, in which so many parts have written sums.
  TEXTCLF_INLINE void advance(int64_t alive, int64_t written) {
    set = 1 - set;
    valid = written;
    walked = alive;
  }

  TEXTCLF_INLINE A* grad_h(int64_t which, int64_t part, int64_t row) const {
    return sums + ((which * parts + part) * rows + row) * h_stride;
  }
};

// Whether the gradients of the gates need a buffer: where there is no table of the caller's that can hold them as they
// are.
template <class T>
static TEXTCLF_INLINE bool buffers_chunk(const LstmShape& s, bool has_index) {
  return has_index || s.input || sizeof(T) != sizeof(Accumulator<T>);
}

// That a chunk's buffers are for.
template <class T>
static int64_t chunk_rows(const LstmShape& s) {
  return larger(chunk_size(s.hidden), s.rows) + kRowsBeyond<T>;
}

template <class T>
static int64_t backward_scratch_bytes(const LstmShape& s, int64_t parts, bool has_index) {
  using A = Accumulator<T>;
  const int64_t positions = chunk_rows<T>(s), state = s.rows * padded<T>(s.hidden);
  const int64_t bytes =
      line_bytes<A>(state) + line_bytes<A>(2 * parts * s.rows * padded<T>(s.width())) +
      line_bytes<T>(buffers_chunk<T>(s, has_index) ? positions * spread_stride<T>(kGates * s.hidden) : 0) +
      parts * (chunk_scratch_bytes<T>(chunk_columns(s)) + line_bytes<uint8_t>(has_index ? s.gate_rows : 0));
  if (!s.projected) return bytes;
  return bytes + line_bytes<A>(state) + line_bytes<T>(parts * positions * s.projected) +
         line_bytes<T>(positions * s.hidden);
}

// Gradients of one row's gates at one step, which started from position `before` (-1: c0), from those of c and of the
// cell's output m, which is h (what later steps and h_n ask) where it is not projected.  Where it is, m is given out.
template <class T, bool kProjected>
static void backward_cell(const LstmBackward<T>& p, int64_t direction, int64_t position, int64_t row, int64_t before,
                          const BackwardState<T>& state, int64_t first_unit, int64_t end_unit, T* grad_gates, T* m) {
  using S = Simd<T>;
  using A = Accumulator<T>;
  using V = typename S::V;
  const int64_t H = p.shape.hidden, n = direction * p.shape.positions + position;
  const int64_t state_row = (direction * p.shape.rows + row) * H;
  const T* saved = p.activations + n * kGates * H;
  const T* c_before = before < 0 ? p.c0 + state_row : p.cells + (direction * p.shape.positions + before) * H;
  const T* grad_output =
      p.grad_output ? p.grad_output + (place_of(p, position) * p.shape.directions + direction) * H : nullptr;
  for (int64_t unit = first_unit; unit < end_unit; unit += S::kLanes) {
    const int64_t count = smaller(S::kLanes, H - unit);
    V dm = {}, dc = {};
    if (row < state.walked) {
      if constexpr (!kProjected)
        for (int64_t part = 0; part < state.valid; ++part)
          dm += Simd<A>::load(state.grad_h(state.set, part, row) + unit);
      dc = Simd<A>::load(state.grad_c + row * state.stride + unit);
    } else {
      if (!kProjected && p.grad_h_n) dm = S::load_first(p.grad_h_n + state_row + unit, count);
      if (p.grad_c_n) dc = S::load_first(p.grad_c_n + state_row + unit, count);
    }
    const V i = S::load_first(saved + unit, count), f = S::load_first(saved + H + unit, count);
    const V g = S::load_first(saved + 2 * H + unit, count), o = S::load_first(saved + 3 * H + unit, count);
    const V tanh_c = Cell<A>::tanh(S::load_first(p.cells + n * H + unit, count));
    if constexpr (kProjected) {
      dm = Simd<A>::load(state.grad_m + row * state.stride + unit);
      S::store_first(m + unit, o * tanh_c, count);
    } else if (grad_output) {
      dm += S::load_first(grad_output + unit, count);
    }
    if (p.grad_cells) dc += S::load_first(p.grad_cells + n * H + unit, count);
    const CellGradients<A> grads(i, f, g, o, tanh_c, dm, dc);
    Simd<A>::store(state.grad_c + row * state.stride + unit, grads.by_c());
    S::store_first(grad_gates + unit, grads.by_i(), count);
    S::store_first(grad_gates + H + unit, grads.by_f(S::load_first(c_before + unit, count)), count);
    S::store_first(grad_gates + 2 * H + unit, grads.by_g(), count);
    S::store_first(grad_gates + 3 * H + unit, grads.by_o(), count);
  }
}

// Asks for what the cells of rows [row, row_end) will read at t, of the units [first, end).  The forward has left it in
// the third-level cache or in memory; the second-level one (2) takes it while the step before multiplies.
template <class T>
static TEXTCLF_INLINE void prefetch_cells(const LstmBackward<T>& p, int64_t direction, int64_t t, int64_t row,
                                          int64_t row_end, int64_t first, int64_t end) {
  const LstmShape& s = p.shape;
  const int64_t H = s.hidden;
  const T* const cells = p.cells + direction * s.positions * H;
  const T* const grad_output = s.projected ? nullptr : p.grad_output;
  for (row_end = smaller(row_end, s.batch_sizes[t]); row < row_end; ++row) {
    const int64_t position = s.offsets[t] + row, before = previous_position(s, direction, t, row);
    const T* const saved = p.activations + (direction * s.positions + position) * kGates * H;
    for (int64_t unit = first; unit < end; unit += 64 / int64_t(sizeof(T))) {
#pragma GCC unroll 4
      for (int64_t gate = 0; gate < kGates; ++gate) __builtin_prefetch(saved + gate * H + unit, 0, 2);
      if (before >= 0) __builtin_prefetch(cells + before * H + unit, 0, 2);
      if (grad_output)
        __builtin_prefetch(grad_output + (place_of(p, position) * s.directions + direction) * H + unit, 0, 2);
    }
  }
}

// Of rows [share.row, share.row_end) of a step: the gradient of h, to grad_h (rows, P), and from it that of the cells'
// output m, of the units in the groups [share.block, share.block_end).
template <class T>
static void backward_projection(const LstmBackward<T>& p, int64_t direction, int64_t position, const Share& share,
                                const BackwardState<T>& state, const T* panels, T* grad_h) {
  using S = Simd<T>;
  constexpr int64_t L = S::kLanes;
  const int64_t H = p.shape.hidden, P = p.shape.projected;
  for (int64_t r = share.row; r < share.row_end; ++r) {
    const T* const from_h_n = p.grad_h_n ? p.grad_h_n + (direction * p.shape.rows + r) * P : nullptr;
    const T* const from_output =
        p.grad_output ? p.grad_output + (place_of(p, position + r) * p.shape.directions + direction) * P : nullptr;
    for (int64_t column = 0; column < P; column += L) {
      const int64_t count = smaller(L, P - column);
      typename S::V dh = {};
      if (r < state.walked)
        for (int64_t part = 0; part < state.valid; ++part)
          dh += Simd<Accumulator<T>>::load(state.grad_h(state.set, part, r) + column);
      else if (from_h_n)
        dh = S::load_first(from_h_n + column, count);
      if (from_output) dh += S::load_first(from_output + column, count);
      S::store_first(grad_h + r * P + column, dh, count);
    }
  }
  multiply_groups(grad_h + share.row * P, P, P, panels, H, share.row_end - share.row, share.block, share.block_end,
                  state.grad_m + share.row * state.stride, state.stride);
}

// Gives out grad_h0 and grad_c0 of rows [row, end), all of whose steps have been walked: a part's share of the columns.
template <class T>
static void finish_rows(const LstmBackward<T>& p, int64_t direction, const BackwardState<T>& state, int64_t row,
                        int64_t end, int64_t part, int64_t parts) {
  using S = Simd<T>;
  using A = Simd<Accumulator<T>>;
  constexpr int64_t L = S::kLanes;
  const int64_t H = p.shape.hidden, P = p.shape.width();
  if (!p.grad_h0) return;
  for (; row < end; ++row) {
    const int64_t at = direction * p.shape.rows + row;
    const auto share = [&](int64_t columns, int64_t index) {
      return smaller(divide_up(columns, L) * index / parts * L, columns);
    };
    for (int64_t column = share(P, part); column < share(P, part + 1); column += L) {
      typename S::V dh = {};
      for (int64_t i = 0; i < state.valid; ++i) dh += A::load(state.grad_h(state.set, i, row) + column);
      S::store_first(p.grad_h0 + at * P + column, dh, smaller(L, P - column));
    }
    for (int64_t unit = share(H, part); unit < share(H, part + 1); unit += L)
      S::store_first(p.grad_c0 + at * H + unit, A::load(state.grad_c + row * state.stride + unit),
                     smaller(L, H - unit));
  }
}

template <class T, bool kProjected>
static void backward_steps(const LstmBackward<T>& p, int64_t direction, const T* panels, char* scratch,
                           const Team& team, int64_t member) {
  constexpr int64_t L = Simd<T>::kLanes;
  const LstmShape& s = p.shape;
  const int64_t H = s.hidden, stride = padded<T>(H);
  const int64_t P = kProjected ? s.projected : H, h_stride = padded<T>(P);
  // W_hr's panels hold its columns, the units, in groups: parts share those then.
  const int64_t block_units = kProjected ? kGroup * L : L, blocks = divide_up(H, block_units);
  const T* const w_hr_panels = panels + kGates * H * h_stride;
  using A = Accumulator<T>;
  A* const grad_c = take<A>(scratch, s.rows * stride);
  A* const grad_m = take<A>(scratch, kProjected ? s.rows * stride : 0);
  A* const sums = take<A>(scratch, 2 * team.parts * s.rows * h_stride);
  BackwardState<T> state{s.rows, stride, h_stride, grad_c, grad_m, sums, team.parts};
  const bool buffered = buffers_chunk<T>(s, p.index);
  const int64_t most_positions = chunk_rows<T>(s);
  const int64_t gates_stride = buffered ? spread_stride<T>(kGates * H) : kGates * H;
  T* const gates_buffer = take<T>(scratch, buffered ? most_positions * gates_stride : 0);
  T* const h_buffer = take<T>(scratch, kProjected ? team.parts * most_positions * P : 0);
  T* const m_buffer = take<T>(scratch, kProjected ? most_positions * H : 0);
  const bool sums_rows = p.index && p.grad_gates;
  uint8_t* const met = take<uint8_t>(scratch, team.parts * line_bytes<uint8_t>(sums_rows ? s.gate_rows : 0));
  char* own_scratch = scratch;  // of each part
  const T* const w_ih_panels = panels + backward_input_panels<T>({s.hidden, s.projected});
  const auto time = [&](int64_t step) { return direction ? step : s.steps - 1 - step; };
  // Where a part's share of some rows begins, in whole pieces of `size`.
  const auto share = [&](int64_t rows, int64_t size, int64_t part) {
    return smaller(divide_up(rows, size) * part / team.parts * size, rows);
  };

  const bool from_zero = p.grad_w_hh && all_zero(p.h0 + direction * s.rows * P, s.rows * P);
  Member me{member};
  int64_t phase = 0;
  for (int64_t step = 0; step < s.steps;) {
    int64_t chunk_end = step + 1, count = s.batch_sizes[time(step)];
    for (; chunk_end < s.steps && count + s.batch_sizes[time(chunk_end)] <= chunk_size(H); ++chunk_end)
      count += s.batch_sizes[time(chunk_end)];
    Chunk<T> chunk;
    chunk.t = direction ? step : time(chunk_end - 1);
    chunk.first = s.offsets[chunk.t];
    chunk.end = s.offsets[chunk.t + chunk_end - step];
    chunk.gates_stride = gates_stride;
    chunk.grad_gates = gates_buffer;
    if constexpr (sizeof(T) == sizeof(A))
      if (!buffered) chunk.grad_gates = p.grad_gates + (direction * s.positions + chunk.first) * kGates * H;
    chunk.grad_h = h_buffer;
    chunk.m = m_buffer;
    const bool first_chunk = step == 0;

    // What a part does in a step; and what the next step finds then.
    const auto walk = [&](int64_t part, int64_t step, bool rows_shared, const BackwardState<T>& state) {
      const int64_t t = time(step), alive = s.batch_sizes[t], position = s.offsets[t];
      const bool backwards = s.rows <= kFewRows && t % 2;  // as in the forward
      if (alive < state.walked) finish_rows(p, direction, state, alive, state.walked, part, team.parts);
      const Share share = share_step(team, part, alive, blocks);
      const int64_t unit = share.block * block_units, unit_end = smaller(share.block_end * block_units, H);
      const int64_t in_chunk = position - chunk.first;
      T* const gates = chunk.grad_gates + in_chunk * gates_stride;
      // Each part that has some of the units needs all of h's gradient, and sums it up for itself: into rows of its
      // own, those of the first being the chunk's.
      if constexpr (kProjected)
        backward_projection(p, direction, position, share, state, w_hr_panels,
                            chunk.grad_h + ((rows_shared ? 0 : part) * most_positions + in_chunk) * P);
      for (int64_t r = share.row; r < share.row_end; ++r) {
        const int64_t before = previous_position(s, direction, t, r);
        backward_cell<T, kProjected>(p, direction, position + r, r, before, state, unit, unit_end,
                                     gates + r * gates_stride, chunk.m + (in_chunk + r) * H);
      }
      // Rows from here on started with this step: their product is h0's gradient, which may not be needed.
      const int64_t started = step + 1 == s.steps ? 0 : direction ? s.batch_sizes[time(step + 1)] : alive;
      const int64_t rows = larger(0, smaller(share.row_end, p.grad_h0 ? alive : started) - share.row);
      // Each group of columns has the rows of its tile ask for as large a share of the next step's cells.
      const auto prefetch = [&](int64_t r, int64_t count, int64_t column, int64_t column_end) {
        if (step + 1 == s.steps) return;
        const auto until = [&](int64_t c) { return unit + divide_up((unit_end - unit) * c / h_stride, L) * L; };
        prefetch_cells(p, direction, time(step + 1), share.row + r, share.row + r + count, until(column),
                       smaller(until(column_end), unit_end));
      };
      multiply_gates<T>({H, unit, unit_end, backwards, team.exceeds_cache}, gates + share.row * gates_stride,
                        gates_stride, rows, panels, h_stride,
                        state.grad_h(1 - state.set, rows_shared ? 0 : part, share.row), prefetch);
    };
    const auto alive_at = [&](int64_t step) { return s.batch_sizes[time(step)]; };
    while (step < chunk_end) {
      const int64_t alive = alive_at(step);
      const bool rows_shared = team.parts == 1 || by_rows(team, alive, blocks);
      const int64_t end = rows_shared ? end_of_steps_alone(alive_at, step, chunk_end) : step + 1;
      const int64_t written = rows_shared ? 1 : team.parts;
      run_phase(team, me, phase++, [&](int64_t part) {
        BackwardState<T> own = state;
        for (int64_t i = step; i < end; ++i, own.advance(alive, written)) walk(part, i, rows_shared, own);
      });
      for (; step < end; ++step) state.advance(alive, written);
    }

    if (!p.grad_w_hh && !(kProjected && p.grad_w_hr) && !buffered) continue;
    run_phase(team, me, phase++, [&](int64_t part) {
      char* const own = own_scratch + part * chunk_scratch_bytes<T>(chunk_columns(s));
      const int64_t R = kGradRows<T>, rows = kGates * H;
      if (p.grad_w_hh) {
        const Chunk<T> summed = from_zero ? chunk.without_first_step(s, direction) : chunk;
        weight_grad<T>(p, direction, summed, summed.grad_gates, gates_stride, pack_h<T>, P, share(rows, R, part),
                       share(rows, R, part + 1), first_chunk, p.grad_w_hh + direction * rows * P, own);
      }
      if (kProjected && p.grad_w_hr)
        weight_grad<T>(p, direction, chunk, chunk.grad_h, P, pack_m<T>, H, share(P, R, part), share(P, R, part + 1),
                       first_chunk, p.grad_w_hr + direction * P * H, own);
      if constexpr (!kProjected)
        if (p.x && !p.index) {
          const int64_t count = chunk.end - chunk.first;
          input_grads(p, direction, chunk, w_ih_panels, share(rows, R, part), share(rows, R, part + 1), first_chunk,
                      count * part / team.parts, count * (part + 1) / team.parts, own);
          return;
        }
      if (buffered && p.grad_gates) {
        const int64_t begin = share(rows, L, part), end = share(rows, L, part + 1);
        uint8_t* const own_met = met + part * line_bytes<uint8_t>(s.gate_rows);
        if (first_chunk && sums_rows) __builtin_memset(own_met, 0, s.gate_rows);
        table_grad(p, direction, chunk, begin, end, own_met);
        if (step == s.steps && sums_rows) clear_unread_rows(p, direction, begin, end, own_met);
      }
    });
  }
  const bool shared_input = !kProjected && p.x && p.index && p.grad_gates;
  if constexpr (kTableNumbers<T> > 1)
    if (shared_input)
      run_phase(team, me, phase++, [&](int64_t part) {
        narrow_table(p, direction, s.gate_rows * part / team.parts, s.gate_rows * (part + 1) / team.parts);
      });
  run_phase(team, me, phase++, [&](int64_t part) {
    finish_rows(p, direction, state, 0, state.walked, part, team.parts);
    if constexpr (!kProjected)
      if (shared_input)
        shared_input_grads(p, direction, w_ih_panels, share(kGates * H, kGradRows<T>, part),
                           share(kGates * H, kGradRows<T>, part + 1), part, team.parts,
                           own_scratch + part * chunk_scratch_bytes<T>(chunk_columns(s)));
  });
}

template <class T>
static void backward(const LstmBackward<T>& p, int64_t direction, const T* panels, char* scratch, const Team& team,
                     int64_t member) {
  const FlushDenormals flush;
  [[maybe_unused]] const typename MatrixUnit<T>::Use matrix_unit;
  const auto steps = p.shape.projected ? backward_steps<T, true> : backward_steps<T, false>;
  steps(p, direction, panels, scratch, team, member);
}

// The backward of one direction of a layer.  Included once per instruction set, see simd.inl.
//
// The steps are walked against the forward's order, in chunks: first the gradients of the gates, step by step, then
// what they add to the gradients of W_hh and of the gate table (chunk_grads.inl).
#pragma once

#include "chunk_grads.inl"
#include "lstm_cell.inl"
#include "team.inl"
#include "tiles.inl"

// What the steps pass on, for each row: the gradient of c, and that of h as one partial sum, or as one of every part
// where the parts share a step by units (each multiplies its own units' gates).  Two sets of sums: a step reads one and
// writes the other.
template <class T>
struct BackwardState {
  using A = Accumulator<T>;
  int64_t rows, stride;  // of each block, (B, P)
  A* grad_c;
  A* sums;
  int64_t parts;       // sums in a set
  int64_t valid = 0;   // of them, written by the last step
  int64_t set = 0;     // the one to be read
  int64_t walked = 0;  // rows that have come alive

  TEXTCLF_INLINE A* grad_h(int64_t which, int64_t part, int64_t row) const {
    return sums + ((which * parts + part) * rows + row) * stride;
  }
};

// Whether the gradients of the gates need a buffer: where the caller's table cannot hold them as they are.
template <class T>
static TEXTCLF_INLINE bool buffers_chunk(bool has_index) {
  return has_index || sizeof(T) != sizeof(Accumulator<T>);
}

template <class T>
static int64_t backward_scratch_bytes(const LstmShape& s, int64_t parts, bool has_index) {
  const int64_t state = s.rows * padded<T>(s.hidden);
  const int64_t chunk = buffers_chunk<T>(has_index) ? larger(chunk_size(s.hidden), s.rows) * kGates * s.hidden : 0;
  return line_bytes<Accumulator<T>>(state) + line_bytes<Accumulator<T>>(2 * parts * state) + line_bytes<T>(chunk) +
         parts * chunk_scratch_bytes<T>(s.hidden);
}

// Gradients of one row's gates at one step, which started from position `before` (-1: c0), from those of its h (what
// later steps and h_n ask) and c.
template <class T>
static void backward_cell(const LstmBackward<T>& p, int64_t direction, int64_t position, int64_t row, int64_t before,
                          const BackwardState<T>& state, int64_t first_unit, int64_t end_unit, T* grad_gates) {
  using S = Simd<T>;
  using A = Accumulator<T>;
  using V = typename S::V;
  const int64_t H = p.shape.hidden, n = direction * p.shape.positions + position;
  const int64_t state_row = (direction * p.shape.rows + row) * H;
  const T* saved = p.activations + n * kGates * H;
  const T* c_before = before < 0 ? p.c0 + state_row : p.cells + (direction * p.shape.positions + before) * H;
  const T* grad_output = p.grad_output ? p.grad_output + (position * p.shape.directions + direction) * H : nullptr;
  for (int64_t unit = first_unit; unit < end_unit; unit += S::kLanes) {
    const int64_t count = smaller(S::kLanes, H - unit);
    V dh = {}, dc = {};
    if (row < state.walked) {
      for (int64_t part = 0; part < state.valid; ++part) dh += Simd<A>::load(state.grad_h(state.set, part, row) + unit);
      dc = Simd<A>::load(state.grad_c + row * state.stride + unit);
    } else {
      if (p.grad_h_n) dh = S::load_first(p.grad_h_n + state_row + unit, count);
      if (p.grad_c_n) dc = S::load_first(p.grad_c_n + state_row + unit, count);
    }
    const V i = S::load_first(saved + unit, count), f = S::load_first(saved + H + unit, count);
    const V g = S::load_first(saved + 2 * H + unit, count), o = S::load_first(saved + 3 * H + unit, count);
    const V tanh_c = Cell<A>::tanh(S::load_first(p.cells + n * H + unit, count));
    if (grad_output) dh += S::load_first(grad_output + unit, count);
    if (p.grad_cells) dc += S::load_first(p.grad_cells + n * H + unit, count);
    const CellGradients<A> grads(i, f, g, o, tanh_c, dh, dc);
    Simd<A>::store(state.grad_c + row * state.stride + unit, grads.by_c());
    S::store_first(grad_gates + unit, grads.by_i(), count);
    S::store_first(grad_gates + H + unit, grads.by_f(S::load_first(c_before + unit, count)), count);
    S::store_first(grad_gates + 2 * H + unit, grads.by_g(), count);
    S::store_first(grad_gates + 3 * H + unit, grads.by_o(), count);
  }
}

// grad_h (R rows, NV vectors of columns) = grad_gates (R, 4H) W_hh over the units [first, end), a gate at a time: four
// sums of H terms each round less than one of 4H.
template <class T, int R, int NV>
static void backward_tile(const T* grad_gates, const T* panel, int64_t hidden, int64_t first, int64_t end,
                          bool backwards, Accumulator<T>* grad_h) {
  using S = Simd<Accumulator<T>>;
  for (int64_t k = 0; k < kGates; ++k) {
    const int64_t gate = backwards ? kGates - 1 - k : k, start = gate * hidden + first;
    typename S::V acc[R][NV] = {};
    const PanelRows<T> rows{panel, kGates * hidden, start, end - first};
    if (R <= kFewRows && backwards)
      multiply_add<T, R, NV, -1>(acc, grad_gates + start, kGates * hidden, rows);
    else
      multiply_add<T, R, NV>(acc, grad_gates + start, kGates * hidden, rows);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int n = 0; n < NV; ++n) {
        Accumulator<T>* to = grad_h + r * padded<T>(hidden) + n * S::kLanes;
        S::store(to, k ? S::load(to) + acc[r][n] : acc[r][n]);
      }
  }
}

// Gives out grad_h0 and grad_c0 of rows [row, end), all of whose steps have been walked: the part's share of the units.
template <class T>
static void finish_rows(const LstmBackward<T>& p, int64_t direction, const BackwardState<T>& state, int64_t row,
                        int64_t end, int64_t first_unit, int64_t end_unit) {
  using S = Simd<T>;
  using A = Simd<Accumulator<T>>;
  const int64_t H = p.shape.hidden;
  for (; row < end; ++row) {
    const int64_t at = (direction * p.shape.rows + row) * H;
    for (int64_t unit = first_unit; unit < end_unit; unit += S::kLanes) {
      const int64_t count = smaller(S::kLanes, H - unit);
      typename S::V dh = {};
      for (int64_t part = 0; part < state.valid; ++part) dh += A::load(state.grad_h(state.set, part, row) + unit);
      S::store_first(p.grad_h0 + at + unit, dh, count);
      S::store_first(p.grad_c0 + at + unit, A::load(state.grad_c + row * state.stride + unit), count);
    }
  }
}

template <class T>
static void backward(const LstmBackward<T>& p, int64_t direction, const T* panels, char* scratch, const Team& team,
                     int64_t member) {
  constexpr int64_t L = Simd<T>::kLanes;
  const LstmShape& s = p.shape;
  const int64_t H = s.hidden, P = padded<T>(H), blocks = forward_blocks<T>(H);
  using A = Accumulator<T>;
  A* const grad_c = take<A>(scratch, s.rows * P);
  BackwardState<T> state{s.rows, P, grad_c, take<A>(scratch, 2 * team.parts * s.rows * P), team.parts};
  const bool buffered = buffers_chunk<T>(p.index);
  T* chunk_buffer = take<T>(scratch, buffered ? larger(chunk_size(H), s.rows) * kGates * H : 0);
  char* own_scratch = scratch;  // of each part
  const auto time = [&](int64_t step) { return direction ? step : s.steps - 1 - step; };
  const auto first_unit = [&](int64_t part) { return blocks * part / team.parts * L; };
  const auto end_unit = [&](int64_t part) { return smaller(blocks * (part + 1) / team.parts * L, H); };

  int64_t phase = 0;
  for (int64_t step = 0; step < s.steps;) {
    int64_t chunk_end = step + 1, count = s.batch_sizes[time(step)];
    for (; chunk_end < s.steps && count + s.batch_sizes[time(chunk_end)] <= chunk_size(H); ++chunk_end)
      count += s.batch_sizes[time(chunk_end)];
    Chunk<T> chunk;
    chunk.t = direction ? step : time(chunk_end - 1);
    chunk.first = s.offsets[chunk.t];
    chunk.end = s.offsets[chunk.t + chunk_end - step];
    T* grad_gates = chunk_buffer;
    if constexpr (sizeof(T) == sizeof(A))
      if (!buffered) grad_gates = p.grad_gates + (direction * s.positions + chunk.first) * kGates * H;
    chunk.grad_gates = grad_gates;
    const bool first_chunk = step == 0;

    for (; step < chunk_end; ++step) {
      const int64_t t = time(step), alive = s.batch_sizes[t], position = s.offsets[t];
      const bool rows_shared = team.parts == 1 || by_rows(team, alive, blocks);
      const bool backwards = s.rows <= kFewRows && t % 2;  // as in the forward
      run_phase(team, member, phase++, [&](int64_t part) {
        if (alive < state.walked)
          finish_rows(p, direction, state, alive, state.walked, first_unit(part), end_unit(part));
        const Share share = share_step(team, part, alive, blocks);
        const int64_t unit = share.block * L, unit_end = smaller(share.block_end * L, H);
        T* gates = grad_gates + (position - chunk.first) * kGates * H;
        for (int64_t r = share.row; r < share.row_end; ++r) {
          const int64_t before = previous_position(s, direction, t, r);
          backward_cell(p, direction, position + r, r, before, state, unit, unit_end, gates + r * kGates * H);
        }
        const int64_t rows = share.row_end - share.row;
        const auto tile = [&]<int R, int NV>(int64_t r, int64_t column) {
          r += share.row;
          backward_tile<T, R, NV>(gates + r * kGates * H, panels + column * kGates * H, H, unit, unit_end, backwards,
                                  state.grad_h(1 - state.set, rows_shared ? 0 : part, r) + column);
        };
        const int64_t width = (rows == 1 ? kOneRowGroups : 1) * kGroup * L, columns = divide_up(P, width);
        for (int64_t i = 0; i < columns; ++i) {
          const int64_t column = (backwards ? columns - 1 - i : i) * width;
          if (rows == 1)
            with_vectors<T, kOneRowGroups * kGroup>(P - column,
                                                    [&]<int NV>() { tile.template operator()<1, NV>(0, column); });
          else
            for_tiles(rows, [&]<int R>(int64_t r) {
              with_vectors<T>(P - column, [&]<int NV>() { tile.template operator()<R, NV>(r, column); });
            });
        }
      });
      state.set = 1 - state.set;
      state.valid = rows_shared ? 1 : team.parts;
      state.walked = alive;
    }

    if (!p.grad_w_hh && !buffered) continue;
    run_phase(team, member, phase++, [&](int64_t part) {
      const int64_t strips = divide_up(kGates * H, kTileRows), vectors = divide_up(kGates * H, L);
      const auto share = [&](int64_t of, int64_t size, int64_t index) {
        return smaller(of * index / team.parts * size, kGates * H);
      };
      if (p.grad_w_hh)
        weight_grad(p, direction, chunk, share(strips, kTileRows, part), share(strips, kTileRows, part + 1),
                    first_chunk, own_scratch + part * chunk_scratch_bytes<T>(H));
      if (buffered) table_grad(p, direction, chunk, share(vectors, L, part), share(vectors, L, part + 1));
    });
  }
  run_phase(team, member, phase++,
            [&](int64_t part) { finish_rows(p, direction, state, 0, state.walked, first_unit(part), end_unit(part)); });
}

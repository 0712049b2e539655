// The recurrence with W_hh in int8, for inference.  Included once per instruction set, see simd.inl.
//
// At one row a float32 step waits for W_hh: 256 kB at H = 128, from the second-level cache.  In int8 it is 64 kB, which
// two cores' first-level caches hold, and an instruction multiplies four numbers a lane.
//
// h is quantised in every step.  It lies in [-1, 1], being a product of a sigmoid and a tanh: a fixed scale of 127 will
// do, and nobody looks for a maximum.  The products of integers are summed exactly, so every instruction set has the
// same sums in any order; then they are scaled, the table's row is added, and the cell is float32's, with c in float32.
#pragma once

#include "lstm_cell.inl"
#include "team.inl"
#include "tiles.inl"

using Floats = Simd<float>::V;
using Ints = Simd<float>::I;
using Shorts = int16_t __attribute__((vector_size(kVectorBytes)));
using Bytes = int8_t __attribute__((vector_size(kVectorBytes / 4)));  // one for each lane of Ints

// How h is stored: q, or q + 128 for an instruction that takes its first factor unsigned.  The row sums of W_hh times
// 128 are then taken away again.
#ifdef TEXTCLF_UNSIGNED_H
constexpr bool kUnsignedH = true;
#else
constexpr bool kUnsignedH = false;
#endif

// acc + the sum of the four products of bytes in each lane, all of them in -127 .. 127: in fewer instructions where a
// set has an overload of its own.  A sum of two products is at most 2 * 127^2 = 32258, and fits in 16 bits.
template <class I>
static TEXTCLF_INLINE I add_products(I acc, I w, I h) {
  const Shorts w16 = (Shorts)w, h16 = (Shorts)h;
  const Shorts pairs = ((w16 << 8) >> 8) * ((h16 << 8) >> 8) + (w16 >> 8) * (h16 >> 8);
  return acc + (((I)pairs << 16) >> 16) + ((I)pairs >> 16);
}

// The lowest byte of each lane.
template <class I>
static TEXTCLF_INLINE Bytes low_bytes(I v) {
  return __builtin_convertvector(v, Bytes);
}

static TEXTCLF_INLINE Ints load_ints(const void* p) {
  Ints v;
  __builtin_memcpy(&v, p, sizeof(Ints));
  return v;
}
static TEXTCLF_INLINE Ints broadcast_four(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof(four));
  return Ints{} + four;
}

// A tile's rows: each has sums of all four gates in registers.
constexpr int kInt8TileRows = kTileVectors < kGates ? 2 : kTileRows;

// Bytes from one row of quantised h to the next: whole cache lines, so that rows of different threads share none.
static TEXTCLF_INLINE int64_t int8_stride(int64_t hidden) { return divide_up(hidden, 64) * 64; }

// acc (R, 4 gates) += h (R rows) @ a block's panel, by `fours` steps of four columns, an even number of them; from the
// last, where kStep is -1.  An addition takes 4 or 5 cycles: one row, with 4 sums, would wait for them.
template <int R, int kStep>
static TEXTCLF_INLINE void int8_product(Ints (&acc)[R][kGates], const int8_t* h, int64_t stride, const int8_t* panel,
                                        int64_t fours) {
  constexpr int64_t kLine = kGates * Int8Weights::kUnits * Int8Weights::kFour;
  constexpr int kChains = R <= kFewRows && kVectorBytes == 64 ? 2 : 1;  // 2 * 2 * 4 sums of 32 registers
  Ints sums[kChains][R][kGates] = {};
  if constexpr (kStep < 0) h += (fours - 1) * Int8Weights::kFour, panel += (fours - 1) * kLine;
  for (int64_t k = 0; k < fours; k += kChains)
#pragma GCC unroll 2
    for (int chain = 0; chain < kChains; ++chain, h += kStep * Int8Weights::kFour, panel += kStep * kLine) {
      Ints w[kGates];
#pragma GCC unroll 4
      for (int g = 0; g < kGates; ++g) w[g] = load_ints(panel + g * (kLine / kGates));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Ints x = broadcast_four(h + r * stride);
#pragma GCC unroll 4
        for (int g = 0; g < kGates; ++g) sums[chain][r][g] = add_products(sums[chain][r][g], w[g], x);
      }
    }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int g = 0; g < kGates; ++g)
#pragma GCC unroll 2
      for (int chain = 0; chain < kChains; ++chain) acc[r][g] += sums[chain][r][g];
}

// What a member of the team works on: h as floats and c (rows, P), h quantised, now and next (rows, stride).
struct Int8State {
  float *h, *c;
  int8_t* quantised[2];
};

// What a vector of units of one row reads and writes, beside its sums.
struct Int8Cell {
  const float* scales;     // kUnits from one gate to the next
  const int32_t* offsets;  // as many; null where there is no product to take them from
  const float* table;      // H from one gate to the next
  int64_t hidden, count;   // H, and the units that there are
  float *h, *c;
  int8_t* quantised;
  float* output;  // null where it is not needed
};

// Sums to gates to c and h.  Not inlined: one copy for all tiles, so that a row has the same bits in each (compilers
// choose freely which of two products of a sum they fuse with the addition).
static __attribute__((noinline)) void int8_cell(const Ints* sums, const Int8Cell& at) {
  using S = Simd<float>;
  Floats gates[kGates];
#pragma GCC unroll 4
  for (int g = 0; g < kGates; ++g) {
    const Ints offset = kUnsignedH && at.offsets ? load_ints(at.offsets + g * Int8Weights::kUnits) : Ints{};
    const Floats scale = S::load(at.scales + g * Int8Weights::kUnits);
    gates[g] =
        __builtin_convertvector(sums[g] - offset, Floats) * scale + S::load_first(at.table + g * at.hidden, at.count);
  }
  const auto state = Cell<float>::state(gates, S::load(at.c));
  const auto cell = Cell<float>::output(state.c, state.one_o);
  S::store(at.c, state.c);
  S::store(at.h, cell.h);
  // kRound has zeros in its lowest byte: that of the sum is q, as a signed byte.
  const Bytes q = (Bytes)low_bytes((Ints)(cell.h * 127.0f + FloatTraits<float>::kRound));
  const Bytes stored = kUnsignedH ? q ^ int8_t(-128) : q;
  __builtin_memcpy(at.quantised, &stored, sizeof(stored));
  if (at.output) S::store_first(at.output, cell.h, at.count);
}

// One block of 16 units for the R rows from `row` on; row 0 of the step is at `position`.  from_zero: h is zero.
template <int R>
static void int8_tile(const LstmForward<float>& p, const Int8Weights& w, int64_t direction, int64_t position,
                      int64_t row, int64_t block, bool backwards, bool from_zero, const Int8State& state, int now) {
  const int64_t H = p.shape.hidden, P = padded<float>(H), stride = int8_stride(H);
  const int64_t fours = from_zero ? 0 : Int8Weights::depth(H) / Int8Weights::kFour;
  const int64_t place_of_block = direction * Int8Weights::blocks(H) + block;
  const int8_t* panel = w.numbers + place_of_block * Int8Weights::block_size(H);
  // The table's rows come from anywhere in it: asked for now, they are there when the product is done.
  const float* table[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const int64_t n = position + row + r, from = p.index ? p.index[n] : n;
    table[r] = p.gates + (direction * p.shape.gate_rows + from) * kGates * H + block * Int8Weights::kUnits;
#pragma GCC unroll 4
    for (int g = 0; g < kGates; ++g) __builtin_prefetch(table[r] + g * H);
  }
#pragma GCC unroll 1
  for (int64_t lane = 0; lane < Int8Weights::kUnits; lane += Simd<float>::kLanes) {
    const int64_t unit = block * Int8Weights::kUnits + lane, count = smaller(Simd<float>::kLanes, H - unit);
    if (count <= 0) return;
    Ints sums[R][kGates] = {};
    const int8_t* h = state.quantised[now] + row * stride;
    if (R <= kFewRows && backwards)
      int8_product<R, -1>(sums, h, stride, panel + lane * Int8Weights::kFour, fours);
    else
      int8_product<R, 1>(sums, h, stride, panel + lane * Int8Weights::kFour, fours);
    const int64_t first = place_of_block * kGates * Int8Weights::kUnits + lane;  // in scales and offsets
#pragma GCC unroll 1
    for (int r = 0; r < R; ++r) {
      const int64_t n = position + row + r, at = (row + r) * P + unit;
      float* output = nullptr;
      if (p.output) output = p.output + ((p.place ? p.place[n] : n) * p.shape.directions + direction) * H + unit;
      int8_cell(sums[r], {w.scales + first, from_zero ? nullptr : w.offsets + first, table[r] + lane, H, count,
                          state.h + at, state.c + at, state.quantised[1 - now] + (row + r) * stride + unit, output});
    }
  }
}

static int64_t int8_scratch_bytes(const LstmShape& s) {
  return line_bytes<int8_t>(2 * s.rows * int8_stride(s.hidden)) +
         line_bytes<float>(2 * s.rows * padded<float>(s.hidden));
}

static void int8_forward(const LstmForward<float>& p, const Int8Weights& weights, int64_t direction, float* scratch,
                         const Team& team, int64_t member) {
  const LstmShape& s = p.shape;
  const int64_t H = s.hidden, P = padded<float>(H), blocks = Int8Weights::blocks(H);
  const int64_t state_at = direction * s.rows * H;         // where this direction starts in h_n, c_n
  const int64_t quantised_size = s.rows * int8_stride(H);  // bytes, whole lines: first, so that they are aligned
  int8_t* quantised = reinterpret_cast<int8_t*>(scratch);
  float* h = scratch + 2 * quantised_size / int64_t(sizeof(float));
  const Int8State state{h, h + s.rows * P, {quantised, quantised + quantised_size}};
  Member me{member};
  int64_t phase = 0;
  run_phase(team, me, phase++, [&](int64_t part) {
    if (part > 0) return;
    // Both halves: a row of the reverse direction comes alive at its own last step, and finds zero.
    for (int64_t i = 0; i < 2 * quantised_size; ++i) quantised[i] = kUnsignedH ? int8_t(-128) : int8_t(0);
    for (int64_t i = 0; i < 2 * s.rows * P; ++i) h[i] = 0.0f;
  });

  int now = 0;
  for (int64_t step = 0; step < s.steps; ++step) {
    const int64_t t = direction ? s.steps - 1 - step : step;
    const int64_t alive = s.batch_sizes[t], position = s.offsets[t];
    const bool backwards = s.rows <= kFewRows && t % 2;
    // Rows from here on start with this step, from zero.
    const int64_t zero = step == 0 ? 0 : direction ? s.batch_sizes[t + 1] : alive;
    // Rows from here on end with this step.
    const int64_t going_on = step + 1 == s.steps ? 0 : direction ? alive : s.batch_sizes[t + 1];
    run_phase(team, me, phase++, [&](int64_t part) {
      const Share share = share_step(team, part, alive, blocks);
      for (int64_t i = share.block; i < share.block_end; ++i) {
        const int64_t block = backwards ? share.block + share.block_end - 1 - i : i;
        for_tiles<kInt8TileRows>(share.row_end - share.row, [&]<int R>(int64_t r) {
          int8_tile<R>(p, weights, direction, position, share.row + r, block, backwards, share.row + r >= zero, state,
                       now);
        });
      }
      const int64_t unit = share.block * Int8Weights::kUnits;
      const int64_t units = smaller(share.block_end * Int8Weights::kUnits, H) - unit;
      for (int64_t r = larger(share.row, going_on); r < share.row_end; ++r) {
        __builtin_memcpy(p.h_n + state_at + r * H + unit, state.h + r * P + unit, units * sizeof(float));
        __builtin_memcpy(p.c_n + state_at + r * H + unit, state.c + r * P + unit, units * sizeof(float));
      }
    });
    now = 1 - now;
  }
}

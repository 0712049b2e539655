// What a chunk of positions adds to the gradients of the weights and of the gate table, from the gradients of its gates
// while they are in the cache.  Included once per instruction set, see simd.inl.
#pragma once

#include "lstm_projection.inl"
#include "tiles.inl"

// A chunk: the steps that fit into this many positions, or one step.  At H = 128 the gates of 128 positions are 256 kB,
// beside 256 kB of W_hh in a second-level cache of 1 MB.  From there on they do not fit, and what counts is that each
// chunk reads and writes the gradient of W_hh, once for as many positions as a row of it is long.
static TEXTCLF_INLINE int64_t chunk_size(int64_t hidden) { return larger(128, hidden); }
// Positions are summed in runs of this many, each in registers and then added to the result: short sums round less.  A
// tile of W_hh's gradient needs of each position kStrip numbers of the gates (64 * 48 floats are 12 kB) and
// kTileVectors vectors of h (of AVX-512, 16 kB): both stay in a first-level cache of 32 kB.
constexpr int64_t kRun = 64;
constexpr int64_t kStrip = 8 * kTileRows;
// Rows of W_hh's gradient in a tile of it, and positions in a step of its sum.
template <class T>
constexpr int64_t kGradRows = kHasMatrixUnit<T> ? MatrixUnit<T>::kRows : kTileRows;
template <class T>
constexpr int64_t kGradStep = kHasMatrixUnit<T> ? MatrixUnit<T>::kDepth : Product<T>::kPair;

// The position that a step of `row` at t starts from: the one before it in the direction's order; -1: the initial
// state.
static TEXTCLF_INLINE int64_t previous_position(const LstmShape& s, int64_t direction, int64_t t, int64_t row) {
  if (direction == 0) return t ? s.offsets[t - 1] + row : -1;
  return t + 1 < s.steps && row < s.batch_sizes[t + 1] ? s.offsets[t + 1] + row : -1;
}

// The row of the output's gradient that a position has.
template <class T>
static TEXTCLF_INLINE int64_t place_of(const LstmBackward<T>& p, int64_t position) {
  return p.place ? p.place[position] : position;
}

// Positions [first, end) are whole steps, from t on.  Their rows:
template <class T>
struct Chunk {
  int64_t t, first, end;
  T* grad_gates;  // 4H each, gates_stride apart
  T* grad_h;      // P each, where h is projected
  T* m;           // H each, the cells' output, where h is projected
  int64_t gates_stride;

  // The gates' gradients of the positions that some h was multiplied at, where h0 is zero: all but those of the
  // direction's first step.  (Its reverse starts rows later, too: those are zeros among others.)
  Chunk without_first_step(const LstmShape& s, int64_t direction) const {
    Chunk rest = *this;
    if (direction) {
      rest.end = smaller(end, s.offsets[s.steps - 1]);
    } else if (t == 0) {
      rest.first = s.offsets[1];
      rest.grad_gates += (rest.first - first) * gates_stride;
    }
    return rest;
  }
};

// Rows a power of two apart share a few sets of a cache.  How far apart those of a buffer are that do not: whole lines,
// and one more.
template <class T>
static TEXTCLF_INLINE int64_t spread_stride(int64_t numbers) {
  return (line_bytes<T>(numbers) + 64) / int64_t(sizeof(T));
}
// Whether more than eight of them would share a set of a first-level cache, whose sets repeat after 4 kB.
template <class T>
static TEXTCLF_INLINE bool share_sets(int64_t stride) {
  return stride * int64_t(sizeof(T)) % 512 == 0;
}

// The most that a position has of what is packed: of h, of m where h is projected, of x where that is.
static TEXTCLF_INLINE int64_t chunk_columns(const LstmShape& s) { return larger(larger(s.hidden, s.width()), s.input); }
template <class T>
static int64_t chunk_scratch_bytes(int64_t columns) {
  return line_bytes<T>(kRun * padded<T>(columns)) + (kHasMatrixUnit<T> ? 2 : 1) * line_bytes<T>(kRun * kStrip);
}

// acc = sum over `count` positions of a (R numbers) x b (NV vectors): both lie position after position, a_stride
// numbers and NV vectors, kPair positions beside each other.
template <class T, int R, int NV>
static TEXTCLF_INLINE void sum_positions(const T* a, int64_t a_stride, const T* b, int64_t count,
                                         typename Simd<Accumulator<T>>::V (&acc)[R][NV]) {
  using M = Product<T>;
  using S = Simd<Accumulator<T>>;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = typename S::V{};
  for (int64_t n = 0; n < count; n += M::kPair, a += a_stride * M::kPair, b += NV * S::kLanes * M::kPair) {
    decltype(M::weights(b)) w[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) w[v] = M::weights(b + v * S::kLanes * M::kPair);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto x = M::numbers(a + r * M::kPair);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = M::multiply_add(w[v], x, acc[r][v]);
    }
  }
}

// to (R rows, of the matrix unit's `in_tile`, NV vectors; rows are `width` apart) = or += that sum.  For the matrix
// unit a row of `a` has the numbers of kRun positions.
template <class T, int R, int NV>
static void weight_grad_tile(const T* a, int64_t a_stride, const T* b, int64_t count, int64_t in_tile, int64_t width,
                             int64_t columns, bool set, Accumulator<T>* to) {
  using S = Simd<Accumulator<T>>;
  const int64_t rows = kHasMatrixUnit<T> ? in_tile : R;
  if (!set) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) __builtin_prefetch(to + r * width + smaller(v * S::kLanes, columns - 1), 1);
  }
  typename S::V acc[R][NV];
  if constexpr (kHasMatrixUnit<T>)
    MatrixUnit<T>::multiply(acc, a, kRun, b, divide_up(count, kGradStep<T>) * kGradStep<T>);
  else
    sum_positions<T, R, NV>(a, a_stride, b, count, acc);
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      Accumulator<T>* at = to + r * width + v * S::kLanes;
      const int64_t lanes = smaller(S::kLanes, columns - v * S::kLanes);
      S::store_first(at, set ? acc[r][v] : S::load_first(at, lanes) + acc[r][v], lanes);
    }
}

// What row(position) has at `count` <= kRun positions from `start` on, for weight_grad_tile: a group of vectors after
// the other, as rows one below the other would share a few sets of the cache at 512 numbers.
template <class T, class Row>
static TEXTCLF_INLINE void pack_run(int64_t start, int64_t count, int64_t numbers, const Row& row, T* packed) {
  constexpr int64_t kPair = Product<T>::kPair, kWidth = kTileVectors * Simd<T>::kLanes;
  const int64_t stride = padded<T>(numbers);
  constexpr int64_t kAhead = 4;  // rows: some 30 lines, as many as a core waits for at a time
  const T* from[kRun];
  for (int64_t n = 0; n < count; ++n) from[n] = row(start + n);
  for (int64_t n = 0; n < count; n += kPair) {
    for (int64_t i = n + kAhead; i < smaller(n + kAhead + kPair, count); ++i)
      for (int64_t j = 0; j < numbers; j += 64 / int64_t(sizeof(T))) __builtin_prefetch(from[i] + j);
    for (int64_t column = 0; column < stride; column += kWidth) {
      const int64_t width = smaller(kWidth, stride - column), columns = smaller(width, numbers - column);
      T* to = packed + column * kRun + n * width;
      const T* const one = from[n] + column;
      const T* const other = n + kPair - 1 < count ? from[n + kPair - 1] + column : nullptr;  // of a pair
      if (columns == kWidth)  // a constant: moves instead of a call
        Product<T>::interleave(one, other, kWidth, to);
      else
        Product<T>::interleave(one, other, columns, to);
      for (int64_t j = columns * kPair; j < width * kPair; ++j) to[j] = T{};
    }
  }
  const int64_t packed_count = divide_up(count, kPair) * kPair, end = divide_up(count, kGradStep<T>) * kGradStep<T>;
  if (packed_count == end) return;
  for (int64_t column = 0; column < stride; column += kWidth) {
    const int64_t width = smaller(kWidth, stride - column);
    __builtin_memset(packed + column * kRun + packed_count * width, 0, (end - packed_count) * width * sizeof(T));
  }
}

// Packs the h that positions started from.  t: a step not after theirs.
template <class T>
static void pack_h(const LstmBackward<T>& p, int64_t d, const Chunk<T>&, int64_t start, int64_t count, int64_t& t,
                   T* packed) {
  const LstmShape& s = p.shape;
  const int64_t P = s.width();
  const auto row = [&](int64_t n) {
    while (n >= s.offsets[t + 1]) ++t;
    const int64_t r = n - s.offsets[t], before = previous_position(s, d, t, r);
    return before < 0 ? p.h0 + (d * s.rows + r) * P : p.output + (before * s.directions + d) * P;
  };
  pack_run(start, count, P, row, packed);
}

// Packs the cells' output at positions, from which h was projected.
template <class T>
static void pack_m(const LstmBackward<T>& p, int64_t, const Chunk<T>& chunk, int64_t start, int64_t count, int64_t&,
                   T* packed) {
  const int64_t H = p.shape.hidden;
  pack_run(start, count, H, [&](int64_t n) { return chunk.m + (n - chunk.first) * H; }, packed);
}

// Packs the input at positions.
template <class T>
static void pack_x(const LstmBackward<T>& p, int64_t, const Chunk<T>&, int64_t start, int64_t count, int64_t&,
                   T* packed) {
  pack_run(start, count, p.shape.input, [&](int64_t n) { return p.x + n * p.shape.input; }, packed);
}

// `rows` <= kStrip numbers of `count` positions, row_stride apart, for weight_grad_tile.
template <class T>
static void pack_strip(const T* numbers, int64_t row_stride, int64_t count, int64_t rows, T* strip) {
  constexpr int64_t kPair = Product<T>::kPair;
  int64_t n = 0;
  for (; n < count; n += kPair, numbers += kPair * row_stride, strip += kPair * kStrip) {
    const T* other = n + 1 < count ? numbers + row_stride : nullptr;
    if (rows == kStrip)  // a constant, as above
      Product<T>::interleave(numbers, other, kStrip, strip);
    else
      Product<T>::interleave(numbers, other, rows, strip);
  }
  const int64_t end = divide_up(count, kGradStep<T>) * kGradStep<T>;
  if (n < end) __builtin_memset(strip, 0, (end - n) * kStrip * sizeof(T));
}
// The strip of `count` positions turned, for the matrix unit: kStrip rows of kRun positions each.
template <class T>
static void turn_strip(const T* strip, int64_t count, T* turned) {
  using M = MatrixUnit<T>;
  for (int64_t n = 0; n < count; n += M::kDepth)
    for (int64_t row = 0; row < kStrip; row += M::kRows)
      M::transpose_pairs(strip + n * kStrip + row * Product<T>::kPair, kStrip * Product<T>::kPair,
                         turned + row * kRun + n, kRun);
}

// Rows [begin, end) of the gradient of a direction's weight (rows, columns), of y = W x: the sum over positions of
// grad_y, the chunk's (positions, rows; y_stride apart), times the x that `pack` packs.  Set by the first chunk, added
// to by the others.
template <class T>
static void weight_grad(const LstmBackward<T>& p, int64_t d, const Chunk<T>& chunk, const T* grad_y, int64_t y_stride,
                        decltype(&pack_h<T>) pack, int64_t columns, int64_t begin, int64_t end, bool set,
                        Accumulator<T>* grad, char* scratch) {
  constexpr int64_t L = Simd<T>::kLanes;
  if (chunk.first == chunk.end && set)
    __builtin_memset(grad + begin * columns, 0, (end - begin) * columns * int64_t(sizeof(*grad)));
  const int64_t stride = padded<T>(columns);
  T* x = take<T>(scratch, kRun * stride);
  T* strip = take<T>(scratch, kRun * kStrip);
  T* const turned = kHasMatrixUnit<T> ? take<T>(scratch, kRun * kStrip) : nullptr;
  // Read where they are, unless pairs have to be made of them or they would fall out of the cache.
  const bool strips = kHasMatrixUnit<T> || Product<T>::kPair > 1 || share_sets<T>(y_stride);
  // As many rows at a time as stay in the second-level cache from run to run: 512 kB.
  const int64_t rows_at_once =
      larger(1, (int64_t(1) << 19) / (kStrip * stride * int64_t(sizeof(Accumulator<T>)))) * kStrip;
  for (; begin < end; begin += rows_at_once) {
    const int64_t stop = smaller(begin + rows_at_once, end);
    int64_t t = chunk.t;
    for (int64_t start = chunk.first; start < chunk.end; start += kRun) {
      const int64_t count = smaller(kRun, chunk.end - start);
      pack(p, d, chunk, start, count, t, x);
      for (int64_t row = begin; row < stop; row += kStrip) {
        const int64_t rows = smaller(kStrip, stop - row);
        const T* const y = grad_y + (start - chunk.first) * y_stride + row;
        if (strips) pack_strip(y, y_stride, count, rows, strip);
        if constexpr (kHasMatrixUnit<T>) turn_strip(strip, count, turned);
        for (int64_t column = 0; column < stride; column += kTileVectors * L) {
          const auto tile = [&]<int R>(int64_t r, int64_t in_tile) {
            const T* const a = kHasMatrixUnit<T> ? turned + r * kRun : strips ? strip + r * Product<T>::kPair : y + r;
            with_vectors<T, kTileVectors>(stride - column, [&]<int NV>() {
              weight_grad_tile<T, R, NV>(a, strips ? kStrip : y_stride, x + column * kRun, count, in_tile, columns,
                                         columns - column, set && start == chunk.first,
                                         grad + (row + r) * columns + column);
            });
          };
          if constexpr (kHasMatrixUnit<T>) {
            constexpr int R = MatrixUnit<T>::kRows;
            for (int64_t r = 0; r < rows; r += R) tile.template operator()<R>(r, smaller(R, rows - r));
          } else {
            for_tiles(rows, [&]<int R>(int64_t r) { tile.template operator()<R>(r, R); });
          }
        }
      }
    }
  }
}

// Columns [begin, end) of the gradient of the direction's gate table: positions are added in their order; without an
// index each is a row of its own.  With one, the first position of a row sets it, which spares zeroing the table and
// reading it once (at U = 1,500 rows and H = 128 it is 3 MB): `met` (R) says which rows have been set.
template <class T>
static void table_grad(const LstmBackward<T>& p, int64_t d, const Chunk<T>& chunk, int64_t begin, int64_t end,
                       uint8_t* met) {
  using A = Simd<Accumulator<T>>;
  const int64_t columns = kGates * p.shape.hidden;
  const auto row = [&](int64_t n) {
    return p.grad_gates + (d * p.shape.gate_rows + (p.index ? p.index[n] : n)) * columns;
  };
  for (int64_t n = chunk.first; n < chunk.end; ++n) {
    if (p.index && n + 2 < chunk.end)  // rows come from anywhere
      for (int64_t j = begin; j < end; j += 64 / int64_t(sizeof(*p.grad_gates))) __builtin_prefetch(row(n + 2) + j, 1);
    const T* from = chunk.grad_gates + (n - chunk.first) * chunk.gates_stride;
    Accumulator<T>* to = row(n);
    const bool add = p.index && met[p.index[n]];
    if (p.index) met[p.index[n]] = 1;
    for (int64_t j = begin; j < end; j += A::kLanes) {
      const int64_t count = smaller(A::kLanes, end - j);
      const typename A::V grad = Simd<T>::load_first(from + j, count);
      A::store_first(to + j, add ? A::load_first(to + j, count) + grad : grad, count);
    }
  }
}

// The rows that no position has read.
template <class T>
static void clear_unread_rows(const LstmBackward<T>& p, int64_t d, int64_t begin, int64_t end, const uint8_t* met) {
  const int64_t R = p.shape.gate_rows, columns = kGates * p.shape.hidden;
  for (int64_t row = 0; row < R; ++row)
    if (!met[row])
      __builtin_memset(p.grad_gates + (d * R + row) * columns + begin, 0, (end - begin) * sizeof(Accumulator<T>));
}

// Of W_ih and the biases, the rows [begin, end); of x, the chunk's positions, or rows, [first, last).
template <class T>
static void input_grads(const LstmBackward<T>& p, int64_t d, const Chunk<T>& chunk, const T* panels, int64_t begin,
                        int64_t end, bool set, int64_t first, int64_t last, char* scratch) {
  using S = Simd<T>;
  constexpr int64_t L = S::kLanes;
  const int64_t I = p.shape.input, rows = kGates * p.shape.hidden;
  if (p.grad_w_ih)
    weight_grad<T>(p, d, chunk, chunk.grad_gates, chunk.gates_stride, pack_x<T>, I, begin, end, set,
                   p.grad_w_ih + d * rows * I, scratch);
  if (p.grad_bias)
    for (int64_t j = begin; j < end; j += L) {
      const int64_t count = smaller(L, end - j);
      typename S::V sum = {};
      for (int64_t start = chunk.first; start < chunk.end; start += kRun) {
        const T* from = chunk.grad_gates + (start - chunk.first) * chunk.gates_stride + j;
        typename S::V part[4] = {};  // sums under way, and shorter ones
        for (int64_t n = 0; n < smaller(kRun, chunk.end - start); ++n, from += chunk.gates_stride)
          part[n % 4] += S::load_first(from, count);
        sum += (part[0] + part[1]) + (part[2] + part[3]);
      }
      using A = Simd<Accumulator<T>>;
      Accumulator<T>* const to = p.grad_bias + d * rows + j;
      A::store_first(to, set ? sum : A::load_first(to, count) + sum, count);
    }
  if (p.grad_x)
    multiply_groups<T, kGates>(chunk.grad_gates + first * chunk.gates_stride, chunk.gates_stride, rows, panels, I,
                               last - first, 0, column_groups<T>(I),
                               p.grad_x + (d * p.shape.gate_rows + chunk.first + first) * I, I);
}

// Where positions read rows of x by index, all have been added to the rows' gates before W_ih's gradient is made of
// them.  Rows in a wider type are narrowed first, each in its place: [row, end).
template <class T>
static constexpr int64_t kTableNumbers = sizeof(Accumulator<T>) / sizeof(T);  // of T in the place of one
template <class T>
static TEXTCLF_INLINE T* table_row(const LstmBackward<T>& p, int64_t d, int64_t row) {
  return reinterpret_cast<T*>(p.grad_gates + (d * p.shape.gate_rows + row) * kGates * p.shape.hidden);
}
template <class T>
static void narrow_table(const LstmBackward<T>& p, int64_t d, int64_t row, int64_t end) {
  using A = Accumulator<T>;
  const int64_t columns = kGates * p.shape.hidden;
  for (; row < end; ++row)  // a vector is read before its half of the place is written
    convert_rows(reinterpret_cast<const A*>(table_row(p, d, row)), columns, table_row(p, d, row), columns, 1, columns);
}

// A part's share of those gradients: some rows at a time, whose 4H numbers are read for all three while they are in the
// cache.
template <class T>
static void shared_input_grads(const LstmBackward<T>& p, int64_t d, const T* panels, int64_t begin, int64_t end,
                               int64_t part, int64_t parts, char* scratch) {
  const int64_t R = p.shape.gate_rows, size = chunk_size(p.shape.hidden);
  for (int64_t row = 0; row < R; row += size) {
    const int64_t count = smaller(size, R - row), stride = kGates * p.shape.hidden * kTableNumbers<T>;
    const Chunk<T> chunk{0, row, row + count, table_row(p, d, row), nullptr, nullptr, stride};
    input_grads(p, d, chunk, panels, begin, end, row == 0, count * part / parts, count * (part + 1) / parts, scratch);
  }
}

// The persistent backward kernel, once for all teams and precisions: a step is the cells' gradients, a product, and
// sums going to the blocks that own their units (lstm_tiles.h says why sums).
//
// Costs of a step for 8 rows, H = 128, one block: 65,536 multiplications a row, as in the forward; the image is
// 8 * 512 numbers in shared memory, read by the warps of 4 column tiles; sums of 4 splits are 16 KB, written and read
// once; 8 * 128 * 6 numbers come from global memory, asked for a product ahead, and 8 * 512 go there.
#include "lstm_backward.h"
#include "lstm_rows.h"

namespace textclf_fast::cuda {
namespace {

constexpr uint32_t kNowhere = 0xffffffff;

// Four numbers that lie side by side.
template <class Number>
struct alignas(4 * sizeof(Number)) Four {
  Number at[4];
};

// Two numbers that lie side by side, as they are in memory: what is asked for ahead is not touched, and so not waited
// for, before it is used.
template <class Product>
struct alignas(8 / Product::kPerWord) NumberPair {
  using Number = typename Product::Number;
  static constexpr int kWords = 2 / Product::kPerWord;
  uint32_t words[kWords];

  __device__ static NumberPair of(float a, float b) {
    if constexpr (kWords == 2) {
      return {{as_bits(a), as_bits(b)}};
    } else {
      const Number numbers[2] = {Product::number(a), Product::number(b)};
      return {{Product::word(numbers)}};
    }
  }
  __device__ Number number(int i) const {
    if constexpr (kWords == 2) {
      return as_float(words[i]);
    } else {
      return {uint16_t(words[0] >> 16 * i)};
    }
  }
  __device__ float value(int i) const { return Product::value(number(i)); }
};

// This warp's part of W_hh: rows of the block's units, as k runs through an image's row, and columns of its tiles.
template <class Product>
class WeightLoader {
 public:
  using Number = typename Product::Number;

  __device__ WeightLoader(const PersistentBackward<Number>& p, int direction, int first_unit, int units)
      : p_(p),
        matrix_(p.w_hh + int64_t(direction) * 4 * p.hidden * p.hidden),
        first_unit_(first_unit),
        end_unit_(first_unit + units < p.hidden ? first_unit + units : p.hidden),
        aligned_(reinterpret_cast<uintptr_t>(p.w_hh) % sizeof(Four<Number>) == 0 && p.hidden % 4 == 0) {}

  // This lane's of a chunk: columns 4g to 4g + 3 of a tile, a quarter of the chunk's depth.
  __device__ WeightChunk load(int tile, int chunk) const {
    constexpr int kPerWord = Product::kPerWord;
    const int lane = int(threadIdx.x % 32), column = tile * kTileColumns + lane / 4 * 4;
    const int unit = first_unit_ + (chunk * 4 + lane % 4) * kPerWord;
    WeightChunk w;
#pragma unroll
    for (int v = 0; v < kPerWord; ++v) {
      Four<Number> row[4];
#pragma unroll
      for (int q = 0; q < 4; ++q) row[q] = load_row(q, unit + v, column);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const Number gates[4] = {row[0].at[n], row[1].at[n], row[2].at[n], row[3].at[n]};
        if constexpr (kPerWord == 1) {
          w.gate[n] = Product::rounded(
              {Product::word(gates), Product::word(gates + 1), Product::word(gates + 2), Product::word(gates + 3)});
        } else if (v == 0) {
          w.gate[n].x = Product::word(gates), w.gate[n].y = Product::word(gates + 2);
        } else {
          w.gate[n].z = Product::word(gates), w.gate[n].w = Product::word(gates + 2);
        }
      }
    }
    return w;
  }

 private:
  __device__ Four<Number> load_row(int gate, int unit, int column) const {
    const Number zero = Product::number(0);
    Four<Number> numbers{{zero, zero, zero, zero}};
    if (unit >= end_unit_ || column >= p_.hidden) return numbers;
    const Number* at = matrix_ + (int64_t(gate) * p_.hidden + unit) * p_.hidden + column;
    if (aligned_) return *reinterpret_cast<const Four<Number>*>(at);
#pragma unroll
    for (int n = 0; n < 4; ++n)
      if (column + n < p_.hidden) numbers.at[n] = at[n];
    return numbers;
  }

  const PersistentBackward<Number>& p_;
  const Number* matrix_;
  int first_unit_, end_unit_;
  bool aligned_;
};

// The cells of which this thread computes the gradients: pairs of neighbouring units of one row, those numbered thread,
// thread + threads ... What they pass from step to step stays in registers.
template <class Product, int kPairs>
struct OwnCells {
  using Number = typename Product::Number;
  using Pair = NumberPair<Product>;

  // What a step reads, asked for before the product of the step before.
  struct Saved {
    Pair gate[4], before, grad_output;
  };

  const PersistentBackward<Number>& p;
  int direction, first_row, first_unit;
  uint32_t place[kPairs];  // row in the team * 2^16 + first unit in the block; kNowhere: no cells
  float grad_c[kPairs][2];
  Pair c[kPairs];
  Saved saved[kPairs];

  __device__ OwnCells(const PersistentBackward<Number>& problem, int its_direction, int its_row, int its_unit)
      : p(problem), direction(its_direction), first_row(its_row), first_unit(its_unit) {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int number = int(threadIdx.x) + k * int(blockDim.x), pairs = p.tiles.units / 2;
      const int row = number / pairs, unit = number % pairs * 2;
      const bool there = row < p.tiles.rows() && first_row + row < p.rows && first_unit + unit < p.hidden;
      place[k] = there ? uint32_t(row) << 16 | uint32_t(unit) : kNowhere;
      const Pair given = there ? load_or_zero(p.grad_c_n, state_at(k), k) : Pair{};
      grad_c[k][0] = given.value(0);
      grad_c[k][1] = given.value(1);
    }
  }

  // now: the step to come; walked: rows that were alive before it; before: the forward's step before it.
  __device__ void load(const StepRows& now, int walked, const StepRows& before) {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      if (row(k) >= now.alive) continue;
      const int64_t at = cell_at(k, now.position);
      const Number* gates = p.activations + gate_at(at, k);
#pragma unroll
      for (int q = 0; q < 4; ++q, gates += p.hidden) saved[k].gate[q] = load_pair(gates, k);
      if (row(k) >= walked) c[k] = load_pair(p.cells + at, k);
      if (row(k) < before.alive) {
        saved[k].before = load_pair(p.cells + cell_at(k, before.position), k);
      } else {
        saved[k].before = load_or_zero(p.c0, state_at(k), k);
      }
      saved[k].grad_output =
          load_or_zero(p.grad_output, (int64_t(now.position + row(k)) * gridDim.y + direction) * p.hidden + unit(k), k);
    }
  }

  // The gradients of a step's gates, to the image and to global memory; and of the states of rows that are done.
  __device__ void advance(const StepRows& now, int walked, const float* sums, unsigned char* image) {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const bool alive = row(k) < now.alive;
      if (!alive && row(k) >= walked) continue;
      float grad_h[2];
      if (row(k) < walked) {
        add_up(grad_h, k, sums);
      } else {
        grad_h_n(grad_h, k);
      }
      if (!alive) {
        finish(k, grad_h);
        continue;
      }
      const int64_t at = cell_at(k, now.position);
      const Pair by_cells = load_or_zero(p.grad_cells, at, k);
      float gates[4][2];
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const float i = saved[k].gate[0].value(n), f = saved[k].gate[1].value(n);
        const float g = saved[k].gate[2].value(n), o = saved[k].gate[3].value(n);
        const float tanh_c = tangent<Product>(c[k].value(n)), dh = grad_h[n] + saved[k].grad_output.value(n);
        const float dc = grad_c[k][n] + by_cells.value(n) + dh * o * (1.0f - tanh_c * tanh_c);
        gates[0][n] = dc * g * i * (1.0f - i);
        gates[1][n] = dc * saved[k].before.value(n) * f * (1.0f - f);
        gates[2][n] = dc * i * (1.0f - g * g);
        gates[3][n] = dh * tanh_c * o * (1.0f - o);
        grad_c[k][n] = dc * f;
      }
      c[k] = saved[k].before;
      publish(gates, reinterpret_cast<uint4*>(image + row(k) * p.tiles.row_bytes() +
                                              (place[k] & 0xffff) * int(4 * sizeof(Number))));
      Number* to = p.grad_gates + gate_at(at, k);
#pragma unroll
      for (int q = 0; q < 4; ++q, to += p.hidden) store_pair(to, Pair::of(gates[q][0], gates[q][1]), k);
    }
  }

  // Rows that were never alive pass their states' gradients on.
  __device__ void finish_empty_rows(int alive_once) {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      if (place[k] == kNowhere || row(k) < alive_once) continue;
      float grad_h[2];
      grad_h_n(grad_h, k);
      finish(k, grad_h);
    }
  }

 private:
  __device__ int row(int k) const { return int(place[k] >> 16); }  // past all rows where there are no cells
  __device__ int unit(int k) const { return first_unit + int(place[k] & 0xffff); }
  __device__ int64_t state_at(int k) const {
    return (int64_t(direction) * p.rows + first_row + row(k)) * p.hidden + unit(k);
  }
  __device__ int64_t cell_at(int k, int position) const {
    return (int64_t(direction) * p.positions + position + row(k)) * p.hidden + unit(k);
  }
  __device__ int64_t gate_at(int64_t cell, int k) const { return (cell - unit(k)) * 4 + unit(k); }

  __device__ Pair load_pair(const Number* at, int k) const {
    if (p.in_pairs) return *reinterpret_cast<const Pair*>(at);
    return Pair::of(Product::value(at[0]), unit(k) + 1 < p.hidden ? Product::value(at[1]) : 0.0f);
  }
  __device__ Pair load_or_zero(const Number* array, int64_t at, int k) const {
    return array ? load_pair(array + at, k) : Pair{};
  }
  __device__ void store_pair(Number* at, const Pair& pair, int k) const {
    if (p.in_pairs) {
      *reinterpret_cast<Pair*>(at) = pair;
    } else {
      at[0] = pair.number(0);
      if (unit(k) + 1 < p.hidden) at[1] = pair.number(1);
    }
  }

  __device__ void grad_h_n(float (&grad_h)[2], int k) const {
    const Pair given = load_or_zero(p.grad_h_n, state_at(k), k);
    grad_h[0] = given.value(0);
    grad_h[1] = given.value(1);
  }

  // In order of the senders: the same bits every time.
  __device__ void add_up(float (&grad_h)[2], int k, const float* sums) const {
    const BackwardTiles& tiles = p.tiles;
    sums += row(k) * tiles.sums_row() + int(place[k] & 0xffff);
    const int stride = tiles.rows() * tiles.sums_row(), senders = tiles.senders();
    grad_h[0] = grad_h[1] = 0.0f;
#pragma unroll 4
    for (int sender = 0; sender < senders; ++sender, sums += stride) {
      const float2 its = *reinterpret_cast<const float2*>(sums);
      grad_h[0] += its.x;
      grad_h[1] += its.y;
    }
  }

  // As the products read them: a unit's four gates side by side.
  __device__ static void publish(const float (&gates)[4][2], uint4* at) {
    uint32_t words[2][4 / Product::kPerWord];
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const Number numbers[4] = {Product::number(gates[0][n]), Product::number(gates[1][n]),
                                 Product::number(gates[2][n]), Product::number(gates[3][n])};
#pragma unroll
      for (int w = 0; w < 4 / Product::kPerWord; ++w) words[n][w] = Product::word(numbers + w * Product::kPerWord);
    }
    if constexpr (Product::kPerWord == 2) {
      at[0] = {words[0][0], words[0][1], words[1][0], words[1][1]};
    } else {
      at[0] = {words[0][0], words[0][1], words[0][2], words[0][3]};
      at[1] = {words[1][0], words[1][1], words[1][2], words[1][3]};
    }
  }

  __device__ void finish(int k, const float (&grad_h)[2]) const {
    store_pair(p.grad_h0 + state_at(k), Pair::of(grad_h[0], grad_h[1]), k);
    store_pair(p.grad_c0 + state_at(k), Pair::of(grad_c[k][0], grad_c[k][1]), k);
  }
};

// A warp's sums of one tile, to the blocks that own their units. Lane 4g + t has columns 4g to 4g + 3, rows 2t and
// 2t + 1.
template <int kRowTiles, class Sums>
__device__ inline void send(const Sums& team, const BackwardTiles& tiles, int step, int sender, int tile, int hidden,
                            int alive, const TileSums (&sums)[kRowTiles]) {
  const int lane = int(threadIdx.x % 32), unit = tile * kTileColumns + lane / 4 * 4;
  if (unit >= hidden) return;
  const int block = unit / tiles.units, column = unit % tiles.units;
#pragma unroll
  for (int j = 0; j < kRowTiles; ++j)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = j * kTileRows + lane % 4 * 2 + r;
      if (row >= alive) continue;
      const float (&at)[2][4] = sums[j].at;
      team.send(step, block, ((sender * tiles.rows() + row) * tiles.sums_row() + column) * 4,
                {as_bits(at[0][r]), as_bits(at[0][2 + r]), as_bits(at[1][r]), as_bits(at[1][2 + r])});
    }
}

template <class Product, class Sums, int kRowTiles>
__global__ void __launch_bounds__(kMaxWarps * 32, 1)
    lstm_backward(const __grid_constant__ PersistentBackward<typename Product::Number> p) {
  constexpr int kTeamRows = kRowTiles * kTileRows;
  constexpr int kKept =
      backward_register_chunks(Product::kStrict, sizeof(typename Product::Number), kRowTiles, Sums::kFamily);
  const BackwardTiles& tiles = p.tiles;
  const int warp = int(threadIdx.x / 32), split = warp % tiles.splits;
  const int block = int(blockIdx.x) % tiles.team, slice = int(blockIdx.x) / tiles.team, direction = int(blockIdx.y);
  const int first_row = slice * kTeamRows, first_unit = block * tiles.units;
  const int first_tile = warp / tiles.splits * tiles.warp_tiles, first_chunk = split * tiles.chunks;
  unsigned char* shared = dynamic_shared();
  unsigned char* image = shared + tiles.weight_bytes();

  // Weights: what of the first tile is in registers, then in shared memory the rest of it and the other tiles.
  WarpWeights<kKept> weights;
  WarpWeights<0> others;
  weights.chunks = tiles.total_chunks - first_chunk < tiles.chunks ? tiles.total_chunks - first_chunk : tiles.chunks;
  others.chunks = weights.chunks;
  auto* kept =
      reinterpret_cast<uint4*>(shared) + warp * tiles.shared_chunks() * (kWarpChunkBytes / 16) + int(threadIdx.x % 32);
  weights.shared = kept;
  {
    const WeightLoader<Product> loader(p, direction, first_unit, tiles.units);
#pragma unroll
    for (int c = 0; c < kKept; ++c) weights.registers[c] = loader.load(first_tile, first_chunk + c);
    for (int j = 0; j < tiles.warp_tiles; ++j)
      for (int c = j == 0 ? kKept : 0; c < tiles.chunks; ++c, kept += 4 * 32) {
        const WeightChunk chunk = loader.load(first_tile + j, first_chunk + c);
#pragma unroll
        for (int n = 0; n < 4; ++n) kept[n * 32] = chunk.gate[n];
      }
  }
  for (int at = int(threadIdx.x) * 16; at < tiles.image_bytes(); at += int(blockDim.x) * 16)
    *reinterpret_cast<uint4*>(image + at) = uint4{0, 0, 0, 0};
  const Sums team(tiles, shared + tiles.sums_at(), p.workspace,
                  int(blockIdx.y * (gridDim.x / unsigned(tiles.team))) + slice);
  team.begin();

  // The steps against the forward's order.
  const int steps = steps_of(p, first_row);
  const auto rows_of = [&](int s) {
    if (s >= steps) return StepRows{0, 0};
    return rows_at(p, direction == 0 ? steps - 1 - s : s, first_row, kTeamRows);
  };
  OwnCells<Product, kRowTiles> own(p, direction, first_row, first_unit);
  own.load(rows_of(0), 0, rows_of(1));
  int walked = 0;
#pragma unroll 1
  for (int s = 0; s <= steps; ++s) {
    const StepRows now = rows_of(s);  // nobody in the last turn, in which those of the step before are done
    own.advance(now, walked, s > 0 ? team.received(s - 1) : nullptr, image);
    if (s == steps) break;
    own.load(rows_of(s + 1), now.alive, rows_of(s + 2));
    sync_block();
#pragma unroll 1
    for (int j = 0; j < tiles.warp_tiles; ++j) {
      if ((first_tile + j) * kTileColumns >= p.hidden) break;
      TileSums sums[kRowTiles] = {};
      const unsigned char* from = image + first_chunk * kChunkBytes;
      if (j == 0) {
        Product::multiply(sums, weights, from, tiles.row_bytes(), now.alive);
      } else {
        others.shared = weights.shared + (j * tiles.chunks - (tiles.chunks < kKept ? tiles.chunks : kKept)) * 4 * 32;
        Product::multiply(sums, others, from, tiles.row_bytes(), now.alive);
      }
      send(team, tiles, s, block * tiles.splits + split, first_tile + j, p.hidden, now.alive, sums);
    }
    team.end_step(s);
    walked = now.alive;
  }
  own.finish_empty_rows(rows_at(p, 0, first_row, kTeamRows).alive);
}

template <class Product, class Sums>
cudaError_t launch_sums(const BackwardPlan& plan, const PersistentBackward<typename Product::Number>& backward,
                        int directions, cudaStream_t stream) {
  const BackwardTiles& tiles = plan.tiles;
  const LaunchShape shape{{unsigned(tiles.team * plan.slices), unsigned(directions), 1},
                          unsigned(tiles.warps()) * 32,
                          size_t(plan.shared_bytes),
                          Sums::kFamily == Family::kCluster ? unsigned(tiles.team) : 1,
                          Sums::kFamily == Family::kGrid};
  if constexpr (most_row_tiles(Product::kStrict) == 2)
    if (tiles.row_tiles == 2) return launch<lstm_backward<Product, Sums, 2>>(shape, stream, backward);
  return launch<lstm_backward<Product, Sums, 1>>(shape, stream, backward);
}

}  // namespace

template <class Product>
cudaError_t launch_backward(const BackwardPlan& plan, PersistentBackward<typename Product::Number> backward,
                            int directions, cudaStream_t stream) {
  using Number = typename Product::Number;
  backward.tiles = plan.tiles;
  backward.in_pairs = backward.hidden % 2 == 0;
  const Number* const arrays[] = {backward.activations, backward.cells,    backward.c0,        backward.grad_output,
                                  backward.grad_h_n,    backward.grad_c_n, backward.grad_cells};
  for (const Number* array : arrays)
    backward.in_pairs &= reinterpret_cast<uintptr_t>(array) % (2 * sizeof(Number)) == 0;
  switch (plan.family) {
    case Family::kBlock:
      return launch_sums<Product, BlockSums>(plan, backward, directions, stream);
    case Family::kCluster:
      return launch_sums<Product, ClusterSums>(plan, backward, directions, stream);
    default:
      return launch_sums<Product, GridSums>(plan, backward, directions, stream);
  }
}

}  // namespace textclf_fast::cuda

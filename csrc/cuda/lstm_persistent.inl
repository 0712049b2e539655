// The persistent forward kernel, once for all teams and precisions: a step is a product, the cell, and h going round.
//
// Costs of a step for 8 rows, H = 128: 65,536 multiplications a row; h is 8 * 128 numbers in and out of shared memory;
// 8 * 512 floats of gates come from global memory (16 KB), for which the step before asks where a step is short.
#include "lstm_persistent.h"
#include "lstm_rows.h"

namespace textclf_fast::cuda {
namespace {

constexpr uint32_t kNowhere = 0xffffffff;

template <class Number>
__device__ inline bool aligned(const Number* matrix, int columns) {
  return reinterpret_cast<uintptr_t>(matrix) % 16 == 0 && columns % (16 / int(sizeof(Number))) == 0;
}

template <class Product, int kKept>
__device__ inline WarpWeights<kKept> load_weights(const PersistentForward<typename Product::Number>& p,
                                                  const Tiles& tiles, int direction, int unit, int split, int warp,
                                                  unsigned char* shared) {
  const int lane = int(threadIdx.x % 32), chunk_numbers = kChunkBytes / int(sizeof(typename Product::Number));
  const int first = split * tiles.chunks;
  WarpWeights<kKept> weights;
  weights.chunks = tiles.total_chunks - first < tiles.chunks ? tiles.total_chunks - first : tiles.chunks;
  auto* kept = reinterpret_cast<uint4*>(shared) + warp * tiles.shared_chunks() * (kWarpChunkBytes / 16) + lane;
  weights.shared = kept;
  const auto load = [&](int chunk, int gate) {
    const auto* row = p.w_hh + (int64_t(direction * 4 + gate) * p.hidden + unit) * p.hidden;
    const int number = (first + chunk) * chunk_numbers + lane % 4 * (chunk_numbers / 4);
    return load_numbers<Product>(row, number, unit < p.hidden ? p.hidden : 0, aligned(p.w_hh, p.hidden));
  };
#pragma unroll
  for (int c = 0; c < kKept; ++c)
#pragma unroll
    for (int q = 0; q < 4; ++q) weights.registers[c].gate[q] = load(c, q);
  for (int c = kKept; c < weights.chunks; ++c)
    for (int q = 0; q < 4; ++q) kept[((c - kKept) * 4 + q) * 32] = load(c, q);
  return weights;
}

// Every block puts h0 of all the team's rows into its first image, and zeros where nothing is ever published.
template <class Product>
__device__ inline void fill_images(const PersistentForward<typename Product::Number>& p, const Tiles& tiles, int images,
                                   int direction, int first_row, unsigned char* at) {
  const int vectors = tiles.image_bytes() / 16, row_vectors = tiles.row_bytes() / 16;
  for (int v = int(threadIdx.x); v < images * vectors; v += int(blockDim.x)) {
    const int row = v / row_vectors, number = v % row_vectors * (4 * Product::kPerWord);
    const bool given = p.h0 && v < vectors && first_row + row < p.rows;
    uint4 words{0, 0, 0, 0};
    if (given)
      words = load_numbers<Product>(p.h0 + (int64_t(direction) * p.rows + first_row + row) * p.hidden, number, p.hidden,
                                    aligned(p.h0, p.hidden));
    reinterpret_cast<uint4*>(at)[v] = words;
  }
}

// The row tiles of which this lane owns unit `unit`, rows 2t and 2t + 1; their states.
template <class Product, int kRowTiles>
struct OwnRows {
  using Number = typename Product::Number;
  static constexpr int kRows = 2 * kRowTiles;

  const PersistentForward<Number>& p;
  int direction, unit, first_row;
  bool mine[kRowTiles];
  float h[kRows], c[kRows];

  // Row k of this lane in the team.
  __device__ static int row(int k) { return k / 2 * kTileRows + int(threadIdx.x % 4) * 2 + k % 2; }
  __device__ bool owns(int k, int alive) const { return mine[k / 2] && unit < p.hidden && row(k) < alive; }
  __device__ int64_t state_at(int k) const {
    return (int64_t(direction) * p.rows + first_row + row(k)) * p.hidden + unit;
  }

  // Gate rows that the step's positions read.
  __device__ void load_gate_rows(uint32_t (&gate_row)[kRows], const StepRows& step) const {
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      gate_row[k] = kNowhere;
      if (!owns(k, step.alive)) continue;
      const int position = step.position + row(k);
      const int64_t asked = p.index ? p.index[position] : position;
      if (asked >= 0 && asked < p.gate_rows) gate_row[k] = uint32_t(asked);
    }
  }

  __device__ void load_gates(TileSums (&gates)[kRowTiles], const uint32_t (&gate_row)[kRows], int alive) const {
#pragma unroll
    for (int k = 0; k < kRows; ++k)
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        float gate = owns(k, alive) ? NAN : 0.0f;
        if (gate_row[k] != kNowhere)
          gate = p.gates[((int64_t(direction) * p.gate_rows + gate_row[k]) * 4 + q) * p.hidden + unit];
        gates[k / 2].at[q / 2][q % 2 * 2 + k % 2] = gate;
      }
  }

  // The cell, and what a position leaves in global memory.
  __device__ void advance(const TileSums (&sums)[kRowTiles], const StepRows& step) {
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      if (!owns(k, step.alive)) continue;
      const TileSums& gate = sums[k / 2];
      const float i = sigmoid(gate.at[0][k % 2]), f = sigmoid(gate.at[0][2 + k % 2]);
      const float g = tangent<Product>(gate.at[1][k % 2]), o = sigmoid(gate.at[1][2 + k % 2]);
      c[k] = f * c[k] + i * g;
      h[k] = o * tangent<Product>(c[k]);
      const int position = step.position + row(k);
      if (p.output) p.output[(int64_t(position) * gridDim.y + direction) * p.hidden + unit] = Product::number(h[k]);
      if (p.cells) p.cells[(int64_t(direction) * p.positions + position) * p.hidden + unit] = Product::number(c[k]);
      if (p.activations) {
        Number* at = p.activations + (int64_t(direction) * p.positions + position) * 4 * p.hidden + unit;
        at[0] = Product::number(i);
        at[p.hidden] = Product::number(f);
        at[2 * p.hidden] = Product::number(g);
        at[3 * p.hidden] = Product::number(o);
      }
    }
  }

  // h of all own rows, alive or not, for the next step. 16-bit numbers are written in pairs: lanes of neighbouring
  // units exchange one, and the even unit's writes row 2t, the odd one's 2t + 1.
  template <class Team>
  __device__ void publish(const Team& team, const Tiles& tiles, int step) const {
#pragma unroll
    for (int j = 0; j < kRowTiles; ++j) {
      if (!mine[j]) continue;
      if constexpr (Product::kPerWord == 1) {
#pragma unroll
        for (int k = 2 * j; k < 2 * j + 2; ++k)
          if (unit < p.hidden) team.publish(step, row(k) * tiles.row_bytes() + unit * 4, word(h[k], 0));
      } else {
        const bool odd = unit & 1;
        const float given = odd ? h[2 * j] : h[2 * j + 1], kept = odd ? h[2 * j + 1] : h[2 * j];
        const float got = shuffle_xor(given, 4);
        const int even_unit = unit & ~1;
        if (even_unit < p.hidden)
          team.publish(step, row(2 * j + odd) * tiles.row_bytes() + even_unit * 2,
                       odd ? word(got, kept) : word(kept, got));
      }
    }
  }

 private:
  __device__ static uint32_t word(float a, float b) {
    const Number numbers[2] = {Product::number(a), Product::number(b)};
    return Product::word(numbers);
  }
};

// Warps that share a unit tile leave their sums in shared memory; the one that owns a row tile adds them up, in order.
template <int kRowTiles>
__device__ inline void add_splits(TileSums (&sums)[kRowTiles], const Tiles& tiles, int warp, int split,
                                  unsigned char* shared) {
  auto* at = reinterpret_cast<uint4*>(shared) + threadIdx.x % 32;
  const auto words = [](const float (&s)[4]) {
    return uint4{as_bits(s[0]), as_bits(s[1]), as_bits(s[2]), as_bits(s[3])};
  };
#pragma unroll
  for (int j = 0; j < kRowTiles; ++j)
#pragma unroll
    for (int m = 0; m < 2; ++m)
      if (j % tiles.splits != split) at[((warp * kRowTiles + j) * 2 + m) * 32] = words(sums[j].at[m]);
  sync_block();
#pragma unroll
  for (int j = 0; j < kRowTiles; ++j) {
    if (j % tiles.splits != split) continue;
#pragma unroll 1
    for (int other = 0; other < tiles.splits; ++other) {
      if (other == split) continue;
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const uint4 w = at[((((warp - split) + other) * kRowTiles + j) * 2 + m) * 32];
        sums[j].at[m][0] += as_float(w.x);
        sums[j].at[m][1] += as_float(w.y);
        sums[j].at[m][2] += as_float(w.z);
        sums[j].at[m][3] += as_float(w.w);
      }
    }
  }
}

template <class Product, class Team, int kRowTiles>
__global__ void __launch_bounds__(kMaxWarps * 32, 1)
    lstm_persistent(const __grid_constant__ PersistentForward<typename Product::Number> p) {
  constexpr int kTeamRows = kRowTiles * kTileRows, kRows = 2 * kRowTiles;
  const Tiles& tiles = p.tiles;
  const int warp = int(threadIdx.x / 32), split = warp % tiles.splits;
  const int block = int(blockIdx.x) % tiles.team, slice = int(blockIdx.x) / tiles.team, direction = int(blockIdx.y);
  const int first_row = slice * kTeamRows;
  unsigned char* shared = dynamic_shared();
  unsigned char* images = shared + tiles.images_at();

  OwnRows<Product, kRowTiles> own{p, direction, 0, first_row, {}, {}, {}};
  own.unit = (block * tiles.unit_tiles + warp / tiles.splits) * kTileUnits + int(threadIdx.x % 32 / 4);
#pragma unroll
  for (int j = 0; j < kRowTiles; ++j) own.mine[j] = j % tiles.splits == split;
  const int batch_rows = p.rows - first_row;
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    const bool there = own.owns(k, batch_rows);
    own.h[k] = there && p.h0 ? Product::value(p.h0[own.state_at(k)]) : 0.0f;
    own.c[k] = there && p.c0 ? Product::value(p.c0[own.state_at(k)]) : 0.0f;
  }
  const auto weights = load_weights<Product, register_chunks(Product::kStrict, kRowTiles, Team::kImages)>(
      p, tiles, direction, own.unit, split, warp, shared);
  fill_images<Product>(p, tiles, Team::kImages, direction, first_row, images);
  const Team team(tiles, images, p.workspace, int(blockIdx.y * (gridDim.x / unsigned(tiles.team))) + slice);
  team.begin();

  const int steps = steps_of(p, first_row);
  const auto rows_of = [&](int s) {
    if (s >= steps) return StepRows{0, 0};
    return rows_at(p, direction == 0 ? s : steps - 1 - s, first_row, kTeamRows);
  };
  // The rows of `gates` are known a step ahead; with mma the gates themselves are, too: a step is shorter than their
  // way from memory. Which rows are alive is asked anew each time: registers are scarcer than cached loads.
  uint32_t gate_row[kRows];
  TileSums gates[kRowTiles];
  own.load_gate_rows(gate_row, rows_of(0));
  if constexpr (!Product::kStrict) {
    own.load_gates(gates, gate_row, rows_of(0).alive);
    own.load_gate_rows(gate_row, rows_of(1));
  }
#pragma unroll 1
  for (int s = 0; s < steps; ++s) {
    const StepRows now = rows_of(s);
    TileSums sums[kRowTiles] = {};
    if constexpr (Product::kStrict) {
      own.load_gates(gates, gate_row, now.alive);
      own.load_gate_rows(gate_row, rows_of(s + 1));
    } else {
#pragma unroll
      for (int j = 0; j < kRowTiles; ++j) sums[j] = gates[j];
      own.load_gates(gates, gate_row, rows_of(s + 1).alive);
      own.load_gate_rows(gate_row, rows_of(s + 2));
    }

    const unsigned char* h = team.image(s);
    Product::multiply(sums, weights, h + split * tiles.chunks * kChunkBytes, tiles.row_bytes(), now.alive);
    if (tiles.splits > 1) add_splits(sums, tiles, warp, split, shared + tiles.sums_at(Team::kImages));
    if constexpr (Product::kStrict) {
#pragma unroll
      for (int j = 0; j < kRowTiles; ++j)
#pragma unroll
        for (int r = 0; r < 8; ++r) sums[j].at[r / 4][r % 4] += gates[j].at[r / 4][r % 4];
    }
    own.advance(sums, now);
    if (s + 1 < steps) {
      own.publish(team, tiles, s);
      team.end_step(s);
    }
  }
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    if (!own.owns(k, batch_rows)) continue;
    p.h_n[own.state_at(k)] = Product::number(own.h[k]);
    p.c_n[own.state_at(k)] = Product::number(own.c[k]);
  }
}

template <class Product, class Team>
cudaError_t launch_team(const Plan& plan, bool cluster, bool cooperative,
                        const PersistentForward<typename Product::Number>& forward, int directions,
                        cudaStream_t stream) {
  const Tiles& tiles = plan.tiles;
  const LaunchShape shape{{unsigned(tiles.team * plan.slices), unsigned(directions), 1},
                          unsigned(tiles.warps()) * 32,
                          size_t(plan.shared_bytes),
                          cluster ? unsigned(tiles.team) : 1,
                          cooperative};
  if constexpr (most_row_tiles(Product::kStrict) == 2)
    if (tiles.row_tiles == 2) return launch<lstm_persistent<Product, Team, 2>>(shape, stream, forward);
  return launch<lstm_persistent<Product, Team, 1>>(shape, stream, forward);
}

}  // namespace

template <class Product>
cudaError_t launch_persistent(const Plan& plan, PersistentForward<typename Product::Number> forward, int directions,
                              cudaStream_t stream) {
  forward.tiles = plan.tiles;
  switch (plan.family) {
    case Family::kBlock:
      return launch_team<Product, BlockTeam>(plan, false, false, forward, directions, stream);
    case Family::kCluster:
      return launch_team<Product, ClusterTeam>(plan, true, false, forward, directions, stream);
    default:
      return launch_team<Product, GridTeam>(plan, false, true, forward, directions, stream);
  }
}

}  // namespace textclf_fast::cuda

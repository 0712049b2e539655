// The persistent backward kernel, once for all teams and precisions: a step is the cells' gradients, a product, and
// sums going to the blocks that own their units (lstm_tiles.h says why sums).
//
// Costs of a step for 8 rows, H = 128, one block: 65,536 multiplications a row, as in the forward; the image is
// 8 * 512 numbers in shared memory, read by the warps of 4 column tiles; sums of 4 splits are 16 KB, written and read
// once; 8 * 128 * 6 numbers come from global memory, asked for a product ahead, and 8 * 512 go there.
#include "backward_cells.h"

namespace textclf_fast::cuda {
namespace {

// Four numbers that lie side by side.
template <class Number>
struct alignas(4 * sizeof(Number)) Four {
  Number at[4];
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

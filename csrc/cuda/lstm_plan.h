// Which kernels compute a layer on a GPU, and how the layer is cut: a function of sizes alone, so that it can be tested
// and explained where there is no GPU. No CUDA header is needed.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lstm_tiles.h"

namespace textclf_fast::cuda {

enum class Precision { kFloat64, kFloat32, kTf32, kBFloat16, kHalf };

constexpr int number_bytes(Precision precision) {
  switch (precision) {
    case Precision::kFloat64:
      return 8;
    case Precision::kFloat32:
    case Precision::kTf32:
      return 4;
    default:
      return 2;
  }
}

// What of a GPU matters.
struct DeviceLimits {
  int capability;  // 10 * major + minor
  int multiprocessors;
  int64_t shared_bytes;  // that a block may ask for
  int largest_cluster;   // blocks; 1: none
};

struct LayerSizes {
  int64_t rows;        // B
  int64_t hidden;      // H
  int64_t directions;  // D
  int64_t steps;       // T
  int64_t positions;   // N
  int64_t gate_rows;   // R
};

// Cut: how a team shares the work, Tiles or BackwardTiles.
template <class Cut>
struct PlanOf {
  Family family;
  Cut tiles;             // of the persistent families; the launch has tiles.team * slices by directions blocks
  int slices;            // teams a direction: each has row_tiles * 8 rows
  int64_t shared_bytes;  // of a block
  const char* reason;    // why not another family
};
using Plan = PlanOf<Tiles>;
using BackwardPlan = PlanOf<BackwardTiles>;

namespace detail {

// A team of that many blocks, or one with team 0 where its weights do not fit.
constexpr Tiles cut(int64_t hidden, Precision precision, int team, int row_tiles, int images, int64_t shared_bytes) {
  Tiles tiles{};
  const bool strict = precision == Precision::kFloat32;
  if (row_tiles > most_row_tiles(strict)) return tiles;
  tiles.row_tiles = row_tiles;
  tiles.kept = register_chunks(strict, row_tiles, images);
  tiles.total_chunks = ceil_div(hidden * number_bytes(precision), kChunkBytes);
  tiles.unit_tiles = ceil_div(ceil_div(hidden, kTileUnits), team);
  if (tiles.unit_tiles > kMaxWarps) return tiles;
  // As few splits as keep the weights in registers: each costs a barrier, and a warp's sums in shared memory.
  const int splits = std::min(kMaxWarps / tiles.unit_tiles, ceil_div(tiles.total_chunks, tiles.kept));
  tiles.chunks = ceil_div(tiles.total_chunks, splits);
  tiles.splits = ceil_div(tiles.total_chunks, tiles.chunks);
  if (tiles.shared_bytes(images) <= shared_bytes) tiles.team = team;
  return tiles;
}

// The first family that a layer fits. cut(family, team, row_tiles): the work of a team of that many blocks, with team 0
// where it does not fit.
template <class Cut, class Function>
constexpr PlanOf<Cut> plan(const LayerSizes& layer, Precision precision, const DeviceLimits& device, Function cut) {
  const auto stepwise = [](const char* reason) { return PlanOf<Cut>{Family::kStepwise, {}, 0, 0, reason}; };
  if (precision == Precision::kFloat64) return stepwise("float64 has no persistent kernel");
  if (device.capability < 80) return stepwise("the persistent kernels need compute capability 8.0");
  // Barriers are counted, and positions and rows numbered, in 32 bits.
  if (layer.hidden > 16384 || layer.steps > (1 << 24) || layer.positions > (1 << 30) || layer.gate_rows >= 0xffffffff)
    return stepwise("the layer is too large");

  // Rows of a team: 8, where that leaves no block waiting for another to be done; else 16, since a step is no twice as
  // long with them.
  const int64_t batch = std::max<int64_t>(layer.rows, 1);
  const auto finish = [&](Family family, const Cut& one, const Cut& two, const char* reason) {
    const auto blocks = [&](const Cut& t) {
      return t.team * layer.directions * ceil_div(batch, t.row_tiles * kTileRows);
    };
    const bool use_two = two.team && (!one.team || blocks(one) > device.multiprocessors);
    const Cut& tiles = use_two ? two : one;
    const int slices = ceil_div(batch, tiles.row_tiles * kTileRows);
    return PlanOf<Cut>{family, tiles, slices, tiles.shared_bytes(Cut::buffers(family)), reason};
  };

  if (const Cut one = cut(Family::kBlock, 1, 1); one.team)
    return finish(Family::kBlock, one, cut(Family::kBlock, 1, 2), "W_hh fits one block");

  // Of the teams whose blocks W_hh fits, the one that reads least of it from shared memory: at 128 bytes a cycle, a
  // step would wait for that longer than for its products. Of those, the smallest.
  const auto better = [](const Cut& a, const Cut& b) {
    return a.team && (!b.team || a.weight_bytes() < b.weight_bytes());
  };
  Cut found{};
  for (int team = 2; team <= device.largest_cluster; team *= 2)
    if (const Cut tiles = cut(Family::kCluster, team, 1); better(tiles, found)) found = tiles;
  if (found.team)
    return finish(Family::kCluster, found, cut(Family::kCluster, found.team, 2), "W_hh fits the blocks of a cluster");

  // All blocks have to be on the GPU together, or they would wait for ever: one a multiprocessor.
  for (int row_tiles = 1; row_tiles <= 2; ++row_tiles) {
    const int slices = ceil_div(batch, row_tiles * kTileRows);
    for (int team = 2; team * layer.directions * slices <= device.multiprocessors; ++team)
      if (const Cut tiles = cut(Family::kGrid, team, row_tiles); better(tiles, found)) found = tiles;
    if (found.team) {
      const int64_t bytes = found.shared_bytes(Cut::buffers(Family::kGrid));
      return {Family::kGrid, found, slices, bytes, "W_hh fits all multiprocessors together"};
    }
  }
  return stepwise("the layer does not fit all multiprocessors together");
}

// The same for the backward's cut.
constexpr BackwardTiles cut_backward(int64_t hidden, Precision precision, Family family, int team, int row_tiles,
                                     int64_t shared_bytes) {
  BackwardTiles tiles{};
  const bool strict = precision == Precision::kFloat32;
  if (row_tiles > most_row_tiles(strict)) return tiles;
  tiles.row_tiles = row_tiles;
  tiles.kept = backward_register_chunks(strict, number_bytes(precision), row_tiles, family);
  tiles.units = ceil_div(ceil_div(hidden, kTileUnits), team) * kTileUnits;
  tiles.total_chunks = tiles.units * 4 * number_bytes(precision) / kChunkBytes;
  const int column_tiles = ceil_div(hidden, kTileColumns);
  tiles.warp_tiles = ceil_div(column_tiles, kMaxWarps);
  tiles.columns = ceil_div(column_tiles, tiles.warp_tiles);
  // As few splits as keep the weights in registers, since each is one more sum to add up, but a warp for every 8 units:
  // that many threads share the cells.
  const int in_registers = ceil_div(tiles.total_chunks, tiles.kept);
  const int for_cells = ceil_div(tiles.units, kTileUnits * tiles.columns);
  const int splits = std::min({kMaxWarps / tiles.columns, tiles.total_chunks, std::max(in_registers, for_cells)});
  tiles.chunks = ceil_div(tiles.total_chunks, splits);
  tiles.splits = ceil_div(tiles.total_chunks, tiles.chunks);
  tiles.team = team;
  const bool enough = tiles.warps() * kTileUnits >= tiles.units;
  if (!enough || tiles.shared_bytes(BackwardTiles::buffers(family)) > shared_bytes) tiles.team = 0;
  return tiles;
}

}  // namespace detail

constexpr Plan plan_forward(const LayerSizes& layer, Precision precision, const DeviceLimits& device) {
  return detail::plan<Tiles>(layer, precision, device, [&](Family family, int team, int row_tiles) {
    return detail::cut(layer.hidden, precision, team, row_tiles, Tiles::buffers(family), device.shared_bytes);
  });
}

constexpr BackwardPlan plan_backward(const LayerSizes& layer, Precision precision, const DeviceLimits& device) {
  return detail::plan<BackwardTiles>(layer, precision, device, [&](Family family, int team, int row_tiles) {
    return detail::cut_backward(layer.hidden, precision, family, team, row_tiles, device.shared_bytes);
  });
}

}  // namespace textclf_fast::cuda

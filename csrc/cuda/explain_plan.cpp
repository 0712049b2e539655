// The plan for Python, textclf_fast/launch_plan.py: part of the CPU's library, since it needs no GPU and no CUDA.
#include <iterator>

#include "lstm_plan.h"

namespace {

using namespace textclf_fast::cuda;

LayerSizes layer_of(const int64_t* numbers) {
  return {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]};
}
DeviceLimits device_of(const int64_t* numbers) {
  return {int(numbers[0]), int(numbers[1]), numbers[2], int(numbers[3])};
}

}  // namespace

// layer: B, H, D, T, N, R; device: capability, multiprocessors, shared bytes, largest cluster; precision: its place in
// the enumeration. -> reason; numbers: family, team, slices, unit tiles, splits, chunks, chunks in all, chunks in
// registers, row tiles, shared bytes.
extern "C" __attribute__((visibility("default"))) const char* textclf_fast_cuda_plan(const int64_t* layer,
                                                                                     int precision,
                                                                                     const int64_t* device,
                                                                                     int64_t* numbers) {
  const Plan plan = plan_forward(layer_of(layer), Precision(precision), device_of(device));
  const Tiles& tiles = plan.tiles;
  const int64_t values[] = {int64_t(plan.family), tiles.team,         plan.slices, tiles.unit_tiles, tiles.splits,
                            tiles.chunks,         tiles.total_chunks, tiles.kept,  tiles.row_tiles,  plan.shared_bytes};
  std::copy(std::begin(values), std::end(values), numbers);
  return plan.reason;
}

// The same for the backward; numbers: family, team, slices, units, tiles of a warp, columns, splits, chunks, chunks in
// all, chunks in registers, row tiles, shared bytes.
extern "C" __attribute__((visibility("default"))) const char* textclf_fast_cuda_backward_plan(const int64_t* layer,
                                                                                              int precision,
                                                                                              const int64_t* device,
                                                                                              int64_t* numbers) {
  const BackwardPlan plan = plan_backward(layer_of(layer), Precision(precision), device_of(device));
  const BackwardTiles& tiles = plan.tiles;
  const int64_t values[] = {int64_t(plan.family), tiles.team,    plan.slices,     tiles.units,
                            tiles.warp_tiles,     tiles.columns, tiles.splits,    tiles.chunks,
                            tiles.total_chunks,   tiles.kept,    tiles.row_tiles, plan.shared_bytes};
  std::copy(std::begin(values), std::end(values), numbers);
  return plan.reason;
}

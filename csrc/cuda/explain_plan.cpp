// The plan for Python, textclf_fast/launch_plan.py: part of the CPU's library, since it needs no GPU and no CUDA.
#include <iterator>

#include "lstm_plan.h"

// layer: B, H, D, T, N, R; device: capability, multiprocessors, shared bytes, largest cluster; precision: its place in
// the enumeration. -> reason; numbers: family, team, slices, unit tiles, splits, chunks, chunks in all, chunks in
// registers, row tiles, shared bytes.
extern "C" __attribute__((visibility("default"))) const char* textclf_fast_cuda_plan(const int64_t* layer,
                                                                                     int precision,
                                                                                     const int64_t* device,
                                                                                     int64_t* numbers) {
  using namespace textclf_fast::cuda;
  const Plan plan = plan_forward({layer[0], layer[1], layer[2], layer[3], layer[4], layer[5]}, Precision(precision),
                                 {int(device[0]), int(device[1]), device[2], int(device[3])});
  const Tiles& tiles = plan.tiles;
  const int64_t values[] = {int64_t(plan.family), tiles.team,         plan.slices, tiles.unit_tiles, tiles.splits,
                            tiles.chunks,         tiles.total_chunks, tiles.kept,  tiles.row_tiles,  plan.shared_bytes};
  std::copy(std::begin(values), std::end(values), numbers);
  return plan.reason;
}

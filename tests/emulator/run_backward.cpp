// The persistent backward on the emulator: `run_backward PROBLEM RESULT FAMILY TEAM ROW_TILES SCHEDULE...`, as
// run_lstm.cpp. RESULT gets grad_gates (where asked for), grad_h0 and grad_c0, one set a schedule.
// tests/emulated_backward.py is the other end. PRODUCT is the one of cuda/products.h that the program is for.
#include <cstdio>
#include <cstdlib>

#include "cuda/lstm_backward.h"
#include "cuda/lstm_offsets.h"
#include "emulator/backward_problem.h"

using namespace emulator;
using namespace textclf_fast;
using namespace textclf_fast::cuda;

namespace {

template <class Product>
void run(const BackwardArrays<typename Product::Number>& a, const BackwardPlan& plan, std::ofstream& out,
         const std::vector<unsigned>& schedules) {
  using Number = typename Product::Number;
  const BackwardHeader& h = a.header;
  for (const unsigned schedule : schedules) {
    emulator::schedule = schedule;
    auto offsets = result<int32_t>(h.steps + 1, h.ragged);
    if (h.ragged) check(launch_step_offsets({a.batch_sizes.data(), offsets.data(), int(h.steps)}, nullptr));
    auto grad_gates = result<Number>(4 * a.outputs(), h.need_gates), grad_h0 = result<Number>(a.states()),
         grad_c0 = result<Number>(a.states());
    const int64_t teams = plan.slices * h.directions, sums = 2 * teams * plan.tiles.team * plan.tiles.sums_bytes();
    auto memory = result<uint4>(plan.family == Family::kGrid ? sums / 16 : 0);
    auto counters = zeros<uint32_t>(teams);
    PersistentBackward<Number> backward{};
    backward.steps = int(h.steps);
    backward.hidden = int(h.hidden);
    backward.rows = int(h.rows);
    backward.positions = int(h.positions);
    backward.offsets = offsets.data();
    backward.w_hh = a.w_hh.data();
    backward.activations = a.activations.data();
    backward.cells = a.cells.data();
    backward.c0 = a.c0.data();
    backward.grad_output = a.grad_output.data();
    backward.grad_h_n = a.grad_h_n.data();
    backward.grad_c_n = a.grad_c_n.data();
    backward.grad_cells = a.grad_cells.data();
    backward.grad_gates = grad_gates.data();
    backward.grad_h0 = grad_h0.data();
    backward.grad_c0 = grad_c0.data();
    backward.workspace = {counters.data(), reinterpret_cast<unsigned char*>(memory.data())};
    check(launch_backward<Product>(plan, backward, int(h.directions), nullptr));
    finish();
    for (auto* written : {&grad_gates, &grad_h0, &grad_c0}) written->write(out);
  }
}

}  // namespace

int main(int count, char** words) {
  if (count < 7) return 2;
  std::ifstream in(words[1], std::ios::binary);
  std::ofstream out(words[2], std::ios::binary);
  const BackwardArrays<PRODUCT::Number> arrays(in);
  const BackwardHeader& h = arrays.header;
  const auto precision = Precision(h.precision);
  const int family = std::atoi(words[3]), team = std::atoi(words[4]), row_tiles = std::atoi(words[5]);
  std::vector<unsigned> schedules;
  for (int i = 6; i < count; ++i) schedules.push_back(unsigned(std::atoi(words[i])));

  const DeviceLimits device = limits();
  BackwardPlan plan =
      plan_backward({h.rows, h.hidden, h.directions, h.steps, h.positions, h.positions}, precision, device);
  if (family >= 0) {
    plan.family = Family(family);
    plan.tiles = detail::cut_backward(h.hidden, precision, plan.family, team, row_tiles, device.shared_bytes);
    plan.slices = ceil_div(h.rows, row_tiles * kTileRows);
    plan.shared_bytes = plan.tiles.shared_bytes(BackwardTiles::buffers(plan.family));
    const int most = plan.family == Family::kCluster ? device.largest_cluster : device.multiprocessors;
    if (!plan.tiles.team || team > most || device.capability < 80) return 3;
  }
  const BackwardTiles& tiles = plan.tiles;
  std::printf("family %d, team %d, units %d, tiles of a warp %d, columns %d, splits %d, chunks %d, row tiles %d\n",
              int(plan.family), tiles.team, tiles.units, tiles.warp_tiles, tiles.columns, tiles.splits, tiles.chunks,
              tiles.row_tiles);
  try {
    run<PRODUCT>(arrays, plan, out, schedules);
  } catch (const Failure& failure) {
    std::puts(failure.what());
    return 1;
  }
}

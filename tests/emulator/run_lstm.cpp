// The persistent forward on the emulator: `run_lstm PROBLEM RESULT FAMILY TEAM ROW_TILES SCHEDULE...`. PROBLEM holds a
// header of int64 (struct Header) and the arrays in the order in which they are read below; RESULT gets output,
// h_n, c_n, activations and cells, one set a schedule. FAMILY -1 takes the plan for an H100.
// tests/cuda/test_lstm_persistent.py is the other end. PRODUCT is the one of cuda/products.h that the program is for.
#include <cstdio>
#include <cstdlib>

#include "cuda/lstm_offsets.h"
#include "cuda/lstm_persistent.h"
#include "emulator/problem_file.h"

using namespace emulator;
using namespace textclf_fast;
using namespace textclf_fast::cuda;

namespace {

template <class Product>
void run(const Header& h, Plan plan, std::ifstream& in, std::ofstream& out, const std::vector<unsigned>& schedules) {
  using Number = typename Product::Number;
  const int64_t states = h.directions * h.rows * h.hidden, outputs = h.positions * h.directions * h.hidden;
  const auto batch_sizes = read<int64_t>(in, h.steps, h.ragged);
  const auto gates = read<float>(in, h.directions * h.gate_rows * 4 * h.hidden);
  const auto index = read<int64_t>(in, h.positions, h.indexed);
  const auto w_hh = read<Number>(in, h.directions * 4 * h.hidden * h.hidden);
  const auto h0 = read<Number>(in, states, h.with_states), c0 = read<Number>(in, states, h.with_states);

  for (const unsigned schedule : schedules) {
    emulator::schedule = schedule;
    auto offsets = result<int32_t>(h.steps + 1, h.ragged);
    if (h.ragged) check(launch_step_offsets({batch_sizes.data(), offsets.data(), int(h.steps)}, nullptr));
    auto output = result<Number>(outputs, h.with_output), h_n = result<Number>(states), c_n = result<Number>(states),
         activations = result<Number>(4 * outputs, h.with_saved), cells = result<Number>(outputs, h.with_saved);
    const int64_t teams = plan.slices * h.directions, image_bytes = teams * 2 * plan.tiles.image_bytes();
    auto images = zeros<uint4>(plan.family == Family::kGrid ? image_bytes / 16 : 0);
    auto counters = zeros<uint32_t>(teams);
    PersistentForward<Number> forward{};
    forward.steps = int(h.steps);
    forward.hidden = int(h.hidden);
    forward.rows = int(h.rows);
    forward.positions = int(h.positions);
    forward.gate_rows = h.gate_rows;
    forward.offsets = offsets.data();
    forward.gates = gates.data();
    forward.index = index.data();
    forward.w_hh = w_hh.data();
    forward.h0 = h0.data();
    forward.c0 = c0.data();
    forward.output = output.data();
    forward.h_n = h_n.data();
    forward.c_n = c_n.data();
    forward.activations = activations.data();
    forward.cells = cells.data();
    forward.workspace = {counters.data(), reinterpret_cast<unsigned char*>(images.data())};
    check(launch_persistent<Product>(plan, forward, int(h.directions), nullptr));
    finish();
    for (auto* written : {&output, &h_n, &c_n, &activations, &cells}) written->write(out);
  }
}

}  // namespace

int main(int count, char** words) {
  if (count < 7) return 2;
  std::ifstream in(words[1], std::ios::binary);
  std::ofstream out(words[2], std::ios::binary);
  const Header h = read<Header>(in, 1).values[0];
  const auto precision = Precision(h.precision);
  const int family = std::atoi(words[3]), team = std::atoi(words[4]), row_tiles = std::atoi(words[5]);
  std::vector<unsigned> schedules;
  for (int i = 6; i < count; ++i) schedules.push_back(unsigned(std::atoi(words[i])));

  const DeviceLimits device = limits();
  Plan plan = plan_forward({h.rows, h.hidden, h.directions, h.steps, h.positions, h.gate_rows}, precision, device);
  if (family >= 0) {
    const int images = Family(family) == Family::kGrid ? 1 : 2;
    plan.family = Family(family);
    plan.tiles = detail::cut(h.hidden, precision, team, row_tiles, images, device.shared_bytes);
    plan.slices = ceil_div(h.rows, row_tiles * kTileRows);
    plan.shared_bytes = plan.tiles.shared_bytes(images);
    const int most = plan.family == Family::kCluster ? device.largest_cluster : device.multiprocessors;
    if (!plan.tiles.team || team > most || device.capability < 80) return 3;
  }
  std::printf("family %d, team %d, unit tiles %d, splits %d, chunks %d, row tiles %d, slices %d\n", int(plan.family),
              plan.tiles.team, plan.tiles.unit_tiles, plan.tiles.splits, plan.tiles.chunks, plan.tiles.row_tiles,
              plan.slices);
  try {
    run<PRODUCT>(h, plan, in, out, schedules);
  } catch (const Failure& failure) {
    std::puts(failure.what());
    return 1;
  }
}

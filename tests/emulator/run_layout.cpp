// The layout of a padded batch, made where its lengths are: `run_layout PROBLEM RESULT SCHEDULE...`. RESULT gets
// positions, places, batch sizes, order and ranks, one set a schedule. tests/cuda/test_layout_in_place.py is the other
// end.
#include <cstdio>
#include <cstdlib>

#include "cuda/layout_in_place.h"
#include "emulator/problem_file.h"

using namespace emulator;
using namespace textclf_fast::cuda;

namespace {

struct LayoutHeader {
  int64_t rows, steps, batch_first;
};

// What no kernel writes. (`result` is -1 in integers, which means something here.)
Array<int64_t> unwritten(int64_t count) { return Array<int64_t>(std::vector<int64_t>(size_t(count), INT64_MIN)); }

void run(std::ifstream& in, std::ofstream& out, const std::vector<unsigned>& schedules) {
  const auto h = read<LayoutHeader>(in, 1).values[0];
  const auto lengths = read<int64_t>(in, h.rows);
  for (const unsigned schedule : schedules) {
    emulator::schedule = schedule;
    auto positions = unwritten(h.steps * h.rows), places = unwritten(h.steps * h.rows);
    auto batch_sizes = unwritten(h.steps), order = unwritten(h.rows), ranks = unwritten(h.rows);
    auto starts = result<int32_t>(h.steps + 1);
    check(launch_layout_in_place({lengths.data(), positions.data(), places.data(), batch_sizes.data(), order.data(),
                                  ranks.data(), starts.data(), int(h.steps), int(h.rows), h.batch_first != 0},
                                 nullptr));
    finish();
    for (auto* array : {&positions, &places, &batch_sizes, &order, &ranks}) array->write(out);
  }
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) return 2;
  std::ifstream in(words[1], std::ios::binary);
  std::ofstream out(words[2], std::ios::binary);
  std::vector<unsigned> schedules;
  for (int i = 3; i < count; ++i) schedules.push_back(unsigned(std::atoi(words[i])));
  try {
    run(in, out, schedules);
  } catch (const Failure& failure) {
    std::puts(failure.what());
    return 1;
  }
}

// What the gradients of W_hh and of a gate table are made of: `run_weight_sums PROBLEM RESULT SCHEDULE...`. RESULT gets
// every position's previous h, then the sums by token, one set a schedule. tests/cuda/test_weight_sums.py is the other
// end; numbers are float32.
#include <cstdio>
#include <cstdlib>

#include "cuda/lstm_offsets.h"
#include "cuda/previous_h.h"
#include "cuda/token_sums.h"
#include "emulator/problem_file.h"

using namespace emulator;
using namespace textclf_fast::cuda;

namespace {

struct SumsHeader {
  int64_t rows, hidden, directions, steps, positions, ragged, gate_rows, width;
};

void run(std::ifstream& in, std::ofstream& out, const std::vector<unsigned>& schedules) {
  const auto h = read<SumsHeader>(in, 1).values[0];
  const int64_t outputs = h.positions * h.directions * h.hidden;
  const auto batch_sizes = read<int64_t>(in, h.steps, h.ragged);
  const auto output = read<uint32_t>(in, outputs), h0 = read<uint32_t>(in, h.directions * h.rows * h.hidden);
  const auto tokens = read<int64_t>(in, h.positions), order = read<int64_t>(in, h.positions);
  const auto values = read<float>(in, h.directions * h.positions * h.width);
  for (const unsigned schedule : schedules) {
    emulator::schedule = schedule;
    auto offsets = result<int32_t>(h.steps + 1, h.ragged);
    if (h.ragged) check(launch_step_offsets({batch_sizes.data(), offsets.data(), int(h.steps)}, nullptr));
    auto previous = result<uint32_t>(outputs);
    check(launch_previous_h<uint32_t>({offsets.data(), output.data(), h0.data(), previous.data(), int(h.steps),
                                       int(h.hidden), int(h.rows), int(h.positions)},
                                      int(h.directions), nullptr));
    finish();
    previous.write(out);
    TokenSums<float> p{tokens.data(), order.data(), values.data(), nullptr, nullptr, h.positions, h.gate_rows, h.width};
    auto sums = zeros<float>(h.directions * h.gate_rows * h.width);
    auto carries = result<float>(h.directions * p.pieces() * h.width);
    p.sums = sums.data();
    p.carries = carries.data();
    check(launch_token_sums(p, int(h.directions), nullptr));
    finish();
    sums.write(out);
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

// The stepwise forward on the emulator: `run_stepwise PROBLEM RESULT SCHEDULE...`, files as for run_lstm. NUMBER is the
// type that the program is for. The GEMM, PyTorch's on a GPU, is three loops here.
#include <cstdio>
#include <cstdlib>

#include "cuda/lstm_stepwise.h"
#include "emulator/problem_file.h"

using namespace textclf_fast;
using namespace textclf_fast::cuda;

namespace {

template <class Number>
void run(const Header& h, std::ifstream& in, std::ofstream& out, const std::vector<unsigned>& schedules) {
  using Numbers = StepNumbers<Number>;
  using Value = StepValue<Number>;
  const int64_t states = h.directions * h.rows * h.hidden, outputs = h.positions * h.directions * h.hidden;
  auto batch_sizes = read<int64_t>(in, h.steps, h.ragged);
  if (!h.ragged) batch_sizes.assign(size_t(h.steps), h.rows);
  std::vector<int64_t> offsets{0};
  for (const int64_t rows : batch_sizes) offsets.push_back(offsets.back() + rows);
  const auto gates = read<Value>(in, h.directions * h.gate_rows * 4 * h.hidden);
  const auto index = read<int64_t>(in, h.positions, h.indexed);
  const auto w_hh = read<Number>(in, h.directions * 4 * h.hidden * h.hidden);
  auto h0 = read<Number>(in, states, h.with_states), c0 = read<Number>(in, states, h.with_states);
  h0.resize(size_t(states), Numbers::number(0));
  c0.resize(size_t(states), Numbers::number(0));

  for (const unsigned schedule : schedules) {
    emulator::schedule = schedule;
    Result<Number> output(outputs, h.with_output), h_n(states), c_n(states), activations(4 * outputs, h.with_saved),
        cells(outputs, h.with_saved);
    Result<Value> recurrent(h.rows * 4 * h.hidden), c(states);
    h_n.values = h0;
    for (size_t i = 0; i < c0.size(); ++i) c.values[i] = Numbers::value(c0[i]);
    const LstmShape shape{h.steps,  h.rows,      h.positions,        h.directions,
                          h.hidden, h.gate_rows, batch_sizes.data(), offsets.data()};
    const auto multiply = [&](int64_t d, int64_t rows) {
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t gate = 0; gate < 4 * h.hidden; ++gate) {
          const Number* w = &w_hh[size_t((d * 4 * h.hidden + gate) * h.hidden)];
          const Number* state = &h_n.values[size_t((d * h.rows + row) * h.hidden)];
          double sum = 0;
          for (int64_t k = 0; k < h.hidden; ++k) sum += double(Numbers::value(w[k])) * double(Numbers::value(state[k]));
          recurrent.values[size_t(row * 4 * h.hidden + gate)] = Value(sum);
        }
    };
    forward_stepwise<Number>({.shape = shape,
                              .gates = gates.data(),
                              .index = pointer(index),
                              .recurrent = recurrent.data(),
                              .h = h_n.data(),
                              .c = c.data(),
                              .output = output.data(),
                              .activations = activations.data(),
                              .cells = cells.data()},
                             multiply, nullptr);
    for (size_t i = 0; i < c.values.size(); ++i) c_n.values[i] = Numbers::number(c.values[i]);
    for (const auto* result : {&output, &h_n, &c_n, &activations, &cells}) result->write(out);
  }
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) return 2;
  std::ifstream in(words[1], std::ios::binary);
  std::ofstream out(words[2], std::ios::binary);
  const Header h = read<Header>(in, 1)[0];
  std::vector<unsigned> schedules;
  for (int i = 3; i < count; ++i) schedules.push_back(unsigned(std::atoi(words[i])));
  try {
    run<NUMBER>(h, in, out, schedules);
  } catch (const emulator::Failure& failure) {
    std::puts(failure.what());
    return 1;
  }
}

// The stepwise forward on the emulator: `run_stepwise PROBLEM RESULT SCHEDULE...`, files as for run_lstm. NUMBER is the
// type that the program is for. The GEMM, PyTorch's on a GPU, is three loops here.
#include <cstdio>
#include <cstdlib>

#include "cuda/lstm_stepwise.h"
#include "emulator/problem_file.h"
#include "emulator/step_numbers.h"

using namespace emulator;
using namespace textclf_fast;
using namespace textclf_fast::cuda;

namespace {

// h (b, H) times the transpose of w (4H, H).
template <class Number>
void multiply(const Number* h, const Number* w, StepValue<Number>* product, int64_t rows, int64_t hidden) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t gate = 0; gate < 4 * hidden; ++gate) {
      double sum = 0;
      for (int64_t k = 0; k < hidden; ++k) sum += double(value(w[gate * hidden + k])) * value(h[row * hidden + k]);
      product[row * 4 * hidden + gate] = StepValue<Number>(sum);
    }
}

template <class Number>
void run(const Header& h, std::ifstream& in, std::ofstream& out, const std::vector<unsigned>& schedules) {
  using Value = StepValue<Number>;
  const int64_t states = h.directions * h.rows * h.hidden, outputs = h.positions * h.directions * h.hidden;
  auto batch_sizes = read<int64_t>(in, h.steps, h.ragged).values;
  if (!h.ragged) batch_sizes.assign(size_t(h.steps), h.rows);
  std::vector<int64_t> offsets{0};
  for (const int64_t rows : batch_sizes) offsets.push_back(offsets.back() + rows);
  const auto gates = read<Value>(in, h.directions * h.gate_rows * 4 * h.hidden);
  const auto index = read<int64_t>(in, h.positions, h.indexed);
  const auto w_hh = read<Number>(in, h.directions * 4 * h.hidden * h.hidden);
  auto h0 = read<Number>(in, states, h.with_states).values, c0 = read<Number>(in, states, h.with_states).values;
  h0.resize(size_t(states), Number{});
  c0.resize(size_t(states), Number{});

  for (const unsigned schedule : schedules) {
    emulator::schedule = schedule;
    auto output = result<Number>(outputs, h.with_output), activations = result<Number>(4 * outputs, h.with_saved),
         cells = result<Number>(outputs, h.with_saved);
    Array<Number> h_n(h0), c_n(c0);
    auto c = result<Value>(states), recurrent = result<Value>(h.rows * 4 * h.hidden);
    std::transform(c0.begin(), c0.end(), c.values.begin(), value<Number>);
    c.send();
    const LstmShape shape{h.steps,  h.rows,      h.positions,        h.directions,
                          h.hidden, h.gate_rows, batch_sizes.data(), offsets.data()};
    const auto gemm = [&](int64_t d, int64_t rows) {
      h_n.fetch();
      multiply(&h_n.values[size_t(d * h.rows * h.hidden)], &w_hh.values[size_t(d * 4 * h.hidden * h.hidden)],
               recurrent.values.data(), rows, h.hidden);
      recurrent.send();
    };
    check(forward_stepwise<Number>({.shape = shape,
                                    .gates = gates.data(),
                                    .index = index.data(),
                                    .recurrent = recurrent.data(),
                                    .h = h_n.data(),
                                    .c = c.data(),
                                    .output = output.data(),
                                    .activations = activations.data(),
                                    .cells = cells.data()},
                                   gemm, nullptr));
    finish();
    c.fetch();
    std::transform(c.values.begin(), c.values.end(), c_n.values.begin(), number<Number>);
    c_n.send();
    for (auto* written : {&output, &h_n, &c_n, &activations, &cells}) written->write(out);
  }
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) return 2;
  std::ifstream in(words[1], std::ios::binary);
  std::ofstream out(words[2], std::ios::binary);
  const Header h = read<Header>(in, 1).values[0];
  std::vector<unsigned> schedules;
  for (int i = 3; i < count; ++i) schedules.push_back(unsigned(std::atoi(words[i])));
  try {
    run<NUMBER>(h, in, out, schedules);
  } catch (const Failure& failure) {
    std::puts(failure.what());
    return 1;
  }
}

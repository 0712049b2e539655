// The stepwise backward on the emulator: `run_backward_stepwise PROBLEM RESULT SCHEDULE...`, files as for run_backward.
// NUMBER is the type that the program is for. The GEMM, PyTorch's on a GPU, is three loops here.
#include <cstdio>
#include <cstdlib>

#include "cuda/lstm_backward_stepwise.h"
#include "emulator/backward_problem.h"
#include "emulator/step_numbers.h"

using namespace emulator;
using namespace textclf_fast;
using namespace textclf_fast::cuda;

namespace {

template <class Number>
void run(const BackwardArrays<Number>& a, std::ofstream& out, const std::vector<unsigned>& schedules) {
  using Value = StepValue<Number>;
  const BackwardHeader& h = a.header;
  std::vector<int64_t> batch_sizes = a.batch_sizes.values, offsets{0};
  if (!h.ragged) batch_sizes.assign(size_t(h.steps), h.rows);
  for (const int64_t rows : batch_sizes) offsets.push_back(offsets.back() + rows);
  const LstmShape shape{h.steps,  h.rows,      h.positions,        h.directions,
                        h.hidden, h.positions, batch_sizes.data(), offsets.data()};
  for (const unsigned schedule : schedules) {
    emulator::schedule = schedule;
    auto grad_gates = result<Number>(a.outputs() * 4), grad_h0 = result<Number>(a.states()),
         grad_c0 = result<Number>(a.states());
    auto grad_h = zeros<Value>(a.states()), grad_c = zeros<Value>(a.states());
    std::transform(a.grad_h_n.values.begin(), a.grad_h_n.values.end(), grad_h.values.begin(), value<Number>);
    std::transform(a.grad_c_n.values.begin(), a.grad_c_n.values.end(), grad_c.values.begin(), value<Number>);
    grad_h.send();
    grad_c.send();
    const auto multiply = [&](int64_t d, int64_t at, int64_t rows) {
      grad_gates.fetch();
      grad_h.fetch();
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t unit = 0; unit < h.hidden; ++unit) {
          double sum = 0;
          for (int64_t k = 0; k < 4 * h.hidden; ++k) {
            const Number gate = grad_gates.values[size_t(((d * h.positions + at + row) * 4 * h.hidden) + k)];
            const Number weight = a.w_hh.values[size_t((d * 4 * h.hidden + k) * h.hidden + unit)];
            sum += double(value(gate)) * double(value(weight));
          }
          grad_h.values[size_t((d * h.rows + row) * h.hidden + unit)] = Value(sum);
        }
      grad_h.send();
    };
    check(backward_stepwise<Number>({.shape = shape,
                                     .activations = a.activations.data(),
                                     .cells = a.cells.data(),
                                     .c0 = a.c0.data(),
                                     .grad_output = a.grad_output.data(),
                                     .grad_cells = a.grad_cells.data(),
                                     .grad_gates = grad_gates.data(),
                                     .grad_h = grad_h.data(),
                                     .grad_c = grad_c.data()},
                                    multiply, nullptr));
    finish();
    grad_h.fetch();
    grad_c.fetch();
    std::transform(grad_h.values.begin(), grad_h.values.end(), grad_h0.values.begin(), number<Number>);
    std::transform(grad_c.values.begin(), grad_c.values.end(), grad_c0.values.begin(), number<Number>);
    grad_h0.send();
    grad_c0.send();
    for (auto* written : {&grad_gates, &grad_h0, &grad_c0}) written->write(out);
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
    run(BackwardArrays<NUMBER>(in), out, schedules);
  } catch (const Failure& failure) {
    std::puts(failure.what());
    return 1;
  }
}

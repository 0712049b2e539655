// The stepwise backward on the emulator: `run_backward_stepwise PROBLEM RESULT SCHEDULE...`, files as for run_backward.
// NUMBER is the type that the program is for. The GEMM, PyTorch's on a GPU, is three loops here.
#include <cstdio>
#include <cstdlib>

#include "cuda/lstm_backward_stepwise.h"
#include "emulator/backward_problem.h"

using namespace textclf_fast;
using namespace textclf_fast::cuda;

namespace {

template <class Number>
void run(const BackwardArrays<Number>& a, std::ofstream& out, const std::vector<unsigned>& schedules) {
  using Numbers = StepNumbers<Number>;
  using Value = StepValue<Number>;
  const BackwardHeader& h = a.header;
  std::vector<int64_t> batch_sizes = a.batch_sizes, offsets{0};
  if (!h.ragged) batch_sizes.assign(size_t(h.steps), h.rows);
  for (const int64_t rows : batch_sizes) offsets.push_back(offsets.back() + rows);
  const LstmShape shape{h.steps,  h.rows,      h.positions,        h.directions,
                        h.hidden, h.positions, batch_sizes.data(), offsets.data()};
  for (const unsigned schedule : schedules) {
    emulator::schedule = schedule;
    Result<Number> grad_gates(a.outputs() * 4), grad_h0(a.states()), grad_c0(a.states());
    std::vector<Value> grad_h(size_t(a.states()), 0), grad_c(size_t(a.states()), 0);
    for (size_t k = 0; k < a.grad_h_n.size(); ++k) grad_h[k] = Numbers::value(a.grad_h_n[k]);
    for (size_t k = 0; k < a.grad_c_n.size(); ++k) grad_c[k] = Numbers::value(a.grad_c_n[k]);
    const auto multiply = [&](int64_t d, int64_t at, int64_t rows) {
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t unit = 0; unit < h.hidden; ++unit) {
          double sum = 0;
          for (int64_t k = 0; k < 4 * h.hidden; ++k) {
            const Number gate = grad_gates.values[size_t(((d * h.positions + at + row) * 4 * h.hidden) + k)];
            const Number weight = a.w_hh[size_t((d * 4 * h.hidden + k) * h.hidden + unit)];
            sum += double(Numbers::value(gate)) * double(Numbers::value(weight));
          }
          grad_h[size_t((d * h.rows + row) * h.hidden + unit)] = Value(sum);
        }
    };
    backward_stepwise<Number>({.shape = shape,
                               .activations = a.activations.data(),
                               .cells = a.cells.data(),
                               .c0 = pointer(a.c0),
                               .grad_output = pointer(a.grad_output),
                               .grad_cells = pointer(a.grad_cells),
                               .grad_gates = grad_gates.data(),
                               .grad_h = grad_h.data(),
                               .grad_c = grad_c.data()},
                              multiply, nullptr);
    for (size_t k = 0; k < grad_h.size(); ++k) {
      grad_h0.values[k] = Numbers::number(grad_h[k]);
      grad_c0.values[k] = Numbers::number(grad_c[k]);
    }
    for (const auto* result : {&grad_gates, &grad_h0, &grad_c0}) result->write(out);
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
  } catch (const emulator::Failure& failure) {
    std::puts(failure.what());
    return 1;
  }
}

// What tests/emulated_backward.py writes for a program.
#pragma once

#include "emulator/problem_file.h"

namespace emulator {

struct BackwardHeader {
  int64_t precision, rows, hidden, directions, steps, positions;
  int64_t ragged, with_c0, with_output, with_h_n, with_c_n, with_cells, need_gates;
};

template <class Number>
struct BackwardArrays {
  explicit BackwardArrays(std::ifstream& in)
      : header(read<BackwardHeader>(in, 1).values[0]),
        batch_sizes(read<int64_t>(in, header.steps, header.ragged)),
        w_hh(read<Number>(in, header.directions * 4 * header.hidden * header.hidden)),
        activations(read<Number>(in, 4 * outputs())),
        cells(read<Number>(in, outputs())),
        c0(read<Number>(in, states(), header.with_c0)),
        grad_output(read<Number>(in, outputs(), header.with_output)),
        grad_h_n(read<Number>(in, states(), header.with_h_n)),
        grad_c_n(read<Number>(in, states(), header.with_c_n)),
        grad_cells(read<Number>(in, outputs(), header.with_cells)) {}

  int64_t states() const { return header.directions * header.rows * header.hidden; }
  int64_t outputs() const { return header.directions * header.positions * header.hidden; }

  BackwardHeader header;
  Array<int64_t> batch_sizes;
  Array<Number> w_hh, activations, cells, c0, grad_output, grad_h_n, grad_c_n, grad_cells;
};

}  // namespace emulator

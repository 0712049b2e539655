// One time step of one direction, element by element: what is left of an LSTM step once the recurrent GEMM is done.
// No CUDA header is needed to read it, so the very same arithmetic is tested on a CPU (tests/cuda/).
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace textclf_fast::cuda {

// Letters as in ../lstm_problem.h; b rows are alive at this step. Gate order i, f, g, o.
template <class T>
struct LstmStep {
  const T* gates;        // (D, R, 4H): input half of the gates, biases included
  const int64_t* index;  // (N): the row of `gates` that a position reads; null: its own
  const T* recurrent;    // (b, 4H): h of the step before, times W_hh transposed
  T* h;                  // (B, H): read by the GEMM before, overwritten here; rows from b on stay as they are
  T* c;                  // (B, H): likewise
  T* output;             // (N, D, H)
  int64_t position;      // of the step's first row
  int64_t rows;          // b
  int64_t hidden;        // H
  int64_t gate_rows;     // R
  int64_t directions;    // D
  int64_t direction;
};

template <class T>
TEXTCLF_HOST_DEVICE inline T sigmoid(T x) {
  using std::exp;
  return T(1) / (T(1) + exp(-x));
}

// Hidden unit `element % H` of row `element / H`. An index outside 0 .. R-1 reads no memory and makes the row NaN from
// here on: finding it on the host would cost a synchronisation a call, and a device assert would take the whole
// process' CUDA context down.
template <class T>
TEXTCLF_HOST_DEVICE inline void lstm_step_element(const LstmStep<T>& step, int64_t element) {
  using std::tanh;
  const int64_t hidden = step.hidden, row = element / hidden, unit = element % hidden;
  const int64_t position = step.position + row;
  const int64_t asked = step.index ? step.index[position] : position;
  const bool inside = asked >= 0 && asked < step.gate_rows;
  const int64_t gate_row = inside ? asked : 0;

  const T* recurrent = step.recurrent + row * 4 * hidden + unit;
  T gate[4];
  for (int k = 0; k < 4; ++k) {
    const int64_t at = (step.direction * step.gate_rows + gate_row) * 4 * hidden + k * hidden + unit;
    gate[k] = inside ? step.gates[at] + recurrent[k * hidden] : T(NAN);
  }
  const T c = sigmoid(gate[1]) * step.c[element] + sigmoid(gate[0]) * tanh(gate[2]);
  const T h = sigmoid(gate[3]) * tanh(c);
  step.c[element] = c;
  step.h[element] = h;
  step.output[(position * step.directions + step.direction) * hidden + unit] = h;
}

}  // namespace textclf_fast::cuda

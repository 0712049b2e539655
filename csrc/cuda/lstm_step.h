// One time step of one direction, element by element: what is left of an LSTM step once the recurrent GEMM is done.
#pragma once

#include <cmath>
#include <cstdint>

#include "products.h"

namespace textclf_fast::cuda {

// Numbers as they are in memory, and what is computed with.
template <class T>
struct StepNumbers {
  using Value = T;
  __device__ static T value(T x) { return x; }
  __device__ static T number(T x) { return x; }
};
template <>
struct StepNumbers<BFloat16> : BFloat16Product {
  using Value = float;
};
template <>
struct StepNumbers<Half> : HalfProduct {
  using Value = float;
};
template <class Number>
using StepValue = typename StepNumbers<Number>::Value;

// Letters as in ../lstm_problem.h; b rows are alive at this step. Gate order i, f, g, o. With 16-bit numbers h is
// rounded once a step, c and both halves of the gates never.
template <class Number>
struct LstmStep {
  using Value = StepValue<Number>;

  const Value* gates;      // (D, R, 4H): input half of the gates, biases included
  const int64_t* index;    // (N): the row of `gates` that a position reads; null: its own
  const Value* recurrent;  // (b, 4H): h of the step before, times W_hh transposed
  Number* h;               // (B, H): read by the GEMM before, overwritten here; rows from b on stay as they are
  Value* c;                // (B, H): likewise
  Number* output;          // (N, D, H); null where it is not needed
  Number* activations;     // (D, N, 4H): gates after their non-linearity; null in inference
  Number* cells;           // (D, N, H); null where they are not needed
  int64_t position;        // of the step's first row
  int64_t rows;            // b
  int64_t positions;       // N
  int64_t hidden;          // H
  int64_t gate_rows;       // R
  int64_t directions;      // D
  int64_t direction;
};

template <class T>
__device__ inline T sigmoid(T x) {
  using std::exp;
  return T(1) / (T(1) + exp(-x));
}

// Hidden unit `element % H` of row `element / H`. An index outside 0 .. R-1 reads no memory and makes the row NaN from
// here on: finding it on the host would cost a synchronisation a call, and a device assert would take the whole
// process' CUDA context down.
template <class Number>
__device__ inline void lstm_step_element(const LstmStep<Number>& step, int64_t element) {
  using std::tanh;
  using Numbers = StepNumbers<Number>;
  using Value = StepValue<Number>;
  const int64_t hidden = step.hidden, row = element / hidden, unit = element % hidden;
  const int64_t position = step.position + row;
  const int64_t asked = step.index ? step.index[position] : position;
  const bool inside = asked >= 0 && asked < step.gate_rows;
  const int64_t gate_row = inside ? asked : 0;

  const Value* recurrent = step.recurrent + row * 4 * hidden + unit;
  Value gate[4];
  for (int k = 0; k < 4; ++k) {
    const int64_t at = (step.direction * step.gate_rows + gate_row) * 4 * hidden + k * hidden + unit;
    gate[k] = inside ? step.gates[at] + recurrent[k * hidden] : Value(NAN);
    gate[k] = k == 2 ? tanh(gate[k]) : sigmoid(gate[k]);
  }
  const Value c = gate[1] * step.c[element] + gate[0] * gate[2];
  const Number h = Numbers::number(gate[3] * tanh(c));
  step.c[element] = c;
  step.h[element] = h;
  if (step.output) step.output[(position * step.directions + step.direction) * hidden + unit] = h;
  const int64_t saved_at = step.direction * step.positions + position;
  if (step.activations)
    for (int k = 0; k < 4; ++k) step.activations[(saved_at * 4 + k) * hidden + unit] = Numbers::number(gate[k]);
  if (step.cells) step.cells[saved_at * hidden + unit] = Numbers::number(c);
}

}  // namespace textclf_fast::cuda

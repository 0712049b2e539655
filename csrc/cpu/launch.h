// Splits a layer into jobs over PyTorch's threads and runs the kernels on them.
#pragma once

#include "../lstm_problem.h"
#include "int8_kernels.h"
#include "kernels.h"

namespace textclf_fast::cpu {

// The weights of all directions, one after the other, as the forward reads them: panels_size numbers, the last of which
// says for which instruction set.
template <class T>
int64_t panels_size(int64_t directions, const WeightSizes& sizes);
template <class T>
void pack_panels(const Weights<T>& weights, int64_t directions, const WeightSizes& sizes, T* panels);

// Whether a layer without an index had better multiply all of its input first, see LstmForward::projected_x.
bool projects_first(const LstmShape& shape, int64_t number_bytes);

// `panels`, of panels_size, are used where they are of the chosen instruction set; null, or others: packed for this
// call.
template <class T>
void run_forward(const LstmForward<T>& problem, const T* panels);
template <class T>
void run_backward(const LstmBackward<T>& problem);

// From zero states, with W_hh in int8: the problem's own w_hh, h0, c0, activations and cells are not looked at.
void run_int8_forward(const LstmForward<float>& problem, const Int8Weights& weights);

}  // namespace textclf_fast::cpu

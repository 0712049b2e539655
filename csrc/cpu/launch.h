// Splits a layer into jobs over PyTorch's threads and runs the kernels on them.
#pragma once

#include "../lstm_problem.h"

namespace textclf_fast::cpu {

template <class T>
void run_forward(const LstmForward<T>& problem);
template <class T>
void run_backward(const LstmBackward<T>& problem);
template <class T>
void run_weight_grad(const LstmWeightGrad<T>& problem);

}  // namespace textclf_fast::cpu

// Launcher of the stepwise family's kernel. The caller checks for launch errors.
#pragma once

#include <cuda_runtime.h>

#include "lstm_step.h"

namespace textclf_fast::cuda {

// One step for all rows alive, on `stream` of the current device. step.rows * step.hidden must be at least 1.
template <class T>
void launch_lstm_step(const LstmStep<T>& step, cudaStream_t stream);

}  // namespace textclf_fast::cuda

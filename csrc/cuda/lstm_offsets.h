// Where the steps of a packed batch begin, from its batch sizes, both on the device.
#pragma once

#include "device.h"

namespace textclf_fast::cuda {

struct StepOffsets {
  const int64_t* batch_sizes;  // (T)
  int32_t* offsets;            // (T + 1): sums, at most 2^31 - 1; what is negative counts as zero
  int steps;                   // T, at least 1
};

cudaError_t launch_step_offsets(const StepOffsets& steps, cudaStream_t stream);

}  // namespace textclf_fast::cuda

#include "lstm_backward.inl"

namespace textclf_fast::cuda {

template cudaError_t launch_backward<HalfProduct>(const BackwardPlan&, PersistentBackward<Half>, int, cudaStream_t);

}  // namespace textclf_fast::cuda

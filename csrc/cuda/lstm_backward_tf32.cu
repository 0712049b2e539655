#include "lstm_backward.inl"

namespace textclf_fast::cuda {

template cudaError_t launch_backward<Tf32Product>(const BackwardPlan&, PersistentBackward<float>, int, cudaStream_t);

}  // namespace textclf_fast::cuda

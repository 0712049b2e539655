#include "lstm_backward.inl"

namespace textclf_fast::cuda {

template cudaError_t launch_backward<BFloat16Product>(const BackwardPlan&, PersistentBackward<BFloat16>, int,
                                                      cudaStream_t);

}  // namespace textclf_fast::cuda

#include "lstm_persistent.inl"

namespace textclf_fast::cuda {

template cudaError_t launch_persistent<BFloat16Product>(const Plan&, PersistentForward<BFloat16>, int, cudaStream_t);

}  // namespace textclf_fast::cuda

#include "lstm_persistent.inl"

namespace textclf_fast::cuda {

template cudaError_t launch_persistent<HalfProduct>(const Plan&, PersistentForward<Half>, int, cudaStream_t);

}  // namespace textclf_fast::cuda

#include "lstm_persistent.inl"

namespace textclf_fast::cuda {

template cudaError_t launch_persistent<Tf32Product>(const Plan&, PersistentForward<float>, int, cudaStream_t);

}  // namespace textclf_fast::cuda

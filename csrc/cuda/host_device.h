// For functions that both sides call; a compiler without CUDA sees nothing of it.
#pragma once

#ifdef __CUDACC__
#define TEXTCLF_HOST_DEVICE __host__ __device__
#else
#define TEXTCLF_HOST_DEVICE
#endif

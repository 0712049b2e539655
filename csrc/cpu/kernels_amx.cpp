// AVX512_BF16 and beside it the matrix unit of Intel's servers (AMX_BF16), for bfloat16 alone.
#include <immintrin.h>
#include <sched.h>

#include "kernels.h"

#ifdef __x86_64__
#include "target.h"

TEXTCLF_TARGET_BEGIN("amx-tile,amx-bf16,avx512bf16,avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")

namespace textclf_fast::cpu::amx {
namespace {

constexpr int kVectorBytes = 64;
// 32 registers: 6 * 4 accumulators + 4 of W + 1 broadcast = 29.
constexpr int kTileRows = 6, kTileVectors = 4;

#include "amx.inl"
#include "lstm_kernels.inl"

}  // namespace
}  // namespace textclf_fast::cpu::amx

TEXTCLF_TARGET_END

// Every machine calls these, whatever it has.
namespace textclf_fast::cpu::amx {

const KernelTable<BFloat16>& kernels() {
  static constexpr auto table = kernel_table<BFloat16>();
  return table;
}

}  // namespace textclf_fast::cpu::amx
#endif

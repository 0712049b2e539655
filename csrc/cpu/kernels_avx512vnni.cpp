// AVX-512 with VNNI: the int8 kernels alone, all else is AVX-512's.
#include <immintrin.h>
#include <sched.h>

#include "int8_kernels.h"

#ifdef __x86_64__
#include "target.h"

TEXTCLF_TARGET_BEGIN("avx512vnni,avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")

namespace textclf_fast::cpu::avx512vnni {
namespace {

constexpr int kVectorBytes = 64;
// 32 registers: 6 * 4 accumulators + 4 of W + 1 broadcast = 29.
constexpr int kTileRows = 6, kTileVectors = 4;

#include "intrinsics_avx512.inl"

// vpdpbusd: four products a lane, of unsigned and signed bytes, and their sum, without saturation.
#define TEXTCLF_UNSIGNED_H
static inline __attribute__((always_inline)) Int32x16 add_products(Int32x16 acc, Int32x16 w, Int32x16 h) {
  return (Int32x16)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)h, (__m512i)w);
}

#include "lstm_int8.inl"

}  // namespace
}  // namespace textclf_fast::cpu::avx512vnni

TEXTCLF_TARGET_END

// Every machine calls these, whatever it has.
namespace textclf_fast::cpu::avx512vnni {

const Int8Kernels& int8_kernels() {
  static constexpr Int8Kernels table{"avx512vnni", int8_scratch_bytes, int8_forward};
  return table;
}

}  // namespace textclf_fast::cpu::avx512vnni
#endif

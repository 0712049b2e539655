// What every compiler can build: 16-byte vectors, which are SSE2 on x86-64 and NEON on aarch64.
#include <sched.h>

#include "int8_kernels.h"
#include "kernels.h"

namespace textclf_fast::cpu::generic {
namespace {

constexpr int kVectorBytes = 16;
// 16 registers (SSE2): 2 * 4 accumulators + 4 of W + 1 broadcast = 13; with a third row they spill.
constexpr int kTileRows = 2;

#include "lstm_int8.inl"
#include "lstm_kernels.inl"

}  // namespace

template <>
KernelTable<float> kernels<float>() {
  return kernel_table<float>();
}
template <>
KernelTable<double> kernels<double>() {
  return kernel_table<double>();
}
Int8Kernels int8_kernels() { return {"generic", int8_scratch_bytes, int8_forward}; }

}  // namespace textclf_fast::cpu::generic

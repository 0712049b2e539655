// What every compiler can build: 16-byte vectors, which are SSE2 on x86-64 and NEON on aarch64.
#include <sched.h>

#include "int8_kernels.h"
#include "kernels.h"

namespace textclf_fast::cpu::generic {
namespace {

constexpr int kVectorBytes = 16;
// 16 registers: 6 * 2 accumulators + 2 of W + 1 broadcast = 15.
constexpr int kTileRows = 6, kTileVectors = 2;

#include "lstm_int8.inl"
#include "lstm_kernels.inl"

}  // namespace

template <>
const KernelTable<float>& kernels<float>() {
  static constexpr auto table = kernel_table<float>();
  return table;
}
template <>
const KernelTable<double>& kernels<double>() {
  static constexpr auto table = kernel_table<double>();
  return table;
}
const Int8Kernels& int8_kernels() {
  static constexpr Int8Kernels table{"generic", int8_scratch_bytes, int8_forward};
  return table;
}

}  // namespace textclf_fast::cpu::generic

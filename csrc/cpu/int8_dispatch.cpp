// Chooses the int8 kernels: those of the chosen instruction set, with VNNI where AVX-512 is chosen and the machine has
// it.
#include <atomic>

#include "int8_kernels.h"

namespace textclf_fast::cpu {
namespace {

bool machine_has_vnni() {
#ifdef __x86_64__
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

std::atomic<bool>& vnni_is_used() {
  static std::atomic<bool> used{machine_has_vnni()};
  return used;
}

}  // namespace

const Int8Kernels& int8_kernels() {
#ifdef __x86_64__
  static const Int8Kernels* const tables[] = {&generic::int8_kernels(), &avx2::int8_kernels(), &avx512::int8_kernels(),
                                              &avx512vnni::int8_kernels()};
  constexpr int kAvx512 = 2;  // and what has more
  const int isa = isa_number();
  if (isa < kAvx512) return *tables[isa];
  return *tables[vnni_is_used().load(std::memory_order_relaxed) ? kAvx512 + 1 : kAvx512];
#else
  return generic::int8_kernels();
#endif
}

}  // namespace textclf_fast::cpu

// For Python (textclf_fast/_libraries.py), through ctypes.
extern "C" __attribute__((visibility("default"))) const char* textclf_fast_int8_isa() {
  return textclf_fast::cpu::int8_kernels().name;
}

// Lets AVX-512 have VNNI or not, for tests and comparisons; 0 where this machine lacks it.
extern "C" __attribute__((visibility("default"))) int textclf_fast_use_vnni(int use) {
  using namespace textclf_fast::cpu;
  if (use && !machine_has_vnni()) return 0;
  vnni_is_used() = use != 0;
  return 1;
}

// Chooses the instruction set, once, when it is first asked for.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace textclf_fast::cpu {
namespace {

enum class Isa { kGeneric, kAvx2, kAvx512 };
constexpr const char* kNames[] = {"generic", "avx2", "avx512"};

Isa best_isa() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    return Isa::kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::kAvx2;
#endif
  return Isa::kGeneric;
}

// TEXTCLF_FAST_ISA caps the choice.  An unknown value is refused in Python at import, where it can be said well.
Isa chosen_isa() {
  static const Isa chosen = [] {
    Isa best = best_isa();
    const char* cap = std::getenv("TEXTCLF_FAST_ISA");
    for (int i = 0; cap && i < 3; ++i)
      if (std::strcmp(cap, kNames[i]) == 0 && Isa(i) < best) best = Isa(i);
    return best;
  }();
  return chosen;
}

}  // namespace

const char* isa_name() { return kNames[int(chosen_isa())]; }

template <class T>
const KernelTable<T>& kernels() {
  static const KernelTable<T> table = [] {
#ifdef __x86_64__
    if (chosen_isa() == Isa::kAvx512) return avx512::kernels<T>();
    if (chosen_isa() == Isa::kAvx2) return avx2::kernels<T>();
#endif
    return generic::kernels<T>();
  }();
  return table;
}
template const KernelTable<float>& kernels<float>();
template const KernelTable<double>& kernels<double>();

}  // namespace textclf_fast::cpu

extern "C" __attribute__((visibility("default"))) const char* textclf_fast_cpu_isa() {
  return textclf_fast::cpu::isa_name();
}

// Chooses the instruction set, once, when it is first asked for.
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iterator>

#ifdef __x86_64__
#include <cpuid.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#endif

#include "kernels.h"

namespace textclf_fast::cpu {
namespace {

enum class Isa { kGeneric, kAvx2, kAvx512, kAvx512Bf16, kAmx };
constexpr const char* kNames[] = {"generic", "avx2", "avx512", "avx512_bf16", "amx"};

// Whether there is a matrix unit for bfloat16, and Linux lets this process use it: its threads have 8 kB more to keep
// from then on, so it wants to be asked, once.
bool has_matrix_unit() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // of CPUID 7, EDX
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || ~edx & (kAmxBf16 | kAmxTile)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Isa best_isa() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    return !__builtin_cpu_supports("avx512bf16") ? Isa::kAvx512 : has_matrix_unit() ? Isa::kAmx : Isa::kAvx512Bf16;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::kAvx2;
#endif
  return Isa::kGeneric;
}

// The best that this machine has, capped by TEXTCLF_FAST_ISA.  An unknown value is refused in Python at import, where
// it can be said well.
Isa first_choice() {
  Isa best = best_isa();
  const char* cap = std::getenv("TEXTCLF_FAST_ISA");
  for (int i = 0; cap && i < int(std::size(kNames)); ++i)
    if (std::strcmp(cap, kNames[i]) == 0 && Isa(i) < best) best = Isa(i);
  return best;
}

std::atomic<Isa>& chosen_isa() {
  static std::atomic<Isa> chosen{first_choice()};
  return chosen;
}

}  // namespace

int isa_number() { return int(chosen_isa().load(std::memory_order_relaxed)); }
const char* isa_name() { return kNames[isa_number()]; }

template <class T>
const KernelTable<T>& kernels() {
#ifdef __x86_64__
  static const KernelTable<T>* const tables[] = {&generic::kernels<T>(), &avx2::kernels<T>(), &avx512::kernels<T>(),
                                                 &avx512::kernels<T>(), &avx512::kernels<T>()};
  return *tables[isa_number()];
#else
  return generic::kernels<T>();
#endif
}
template <>
const KernelTable<BFloat16>& kernels<BFloat16>() {
#ifdef __x86_64__
  return isa_number() == int(Isa::kAmx) ? amx::kernels() : avx512_bf16::kernels();
#else
  static const KernelTable<BFloat16> table{};
  return table;
#endif
}
bool has_bfloat16() { return isa_number() >= int(Isa::kAvx512Bf16); }

template const KernelTable<float>& kernels<float>();
template const KernelTable<double>& kernels<double>();

}  // namespace textclf_fast::cpu

// For Python (textclf_fast/_libraries.py), through ctypes.
extern "C" __attribute__((visibility("default"))) const char* textclf_fast_cpu_isa() {
  return textclf_fast::cpu::isa_name();
}

// Switches to another set, for tests and comparisons; 0 where there is none of that name or this machine lacks it.
extern "C" __attribute__((visibility("default"))) int textclf_fast_use_cpu_isa(const char* name) {
  using namespace textclf_fast::cpu;
  for (int i = 0; i <= int(best_isa()); ++i)
    if (std::strcmp(name, kNames[i]) == 0) {
      chosen_isa() = Isa(i);
      return 1;
    }
  return 0;
}

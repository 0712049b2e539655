// The CPU kernels of one instruction set, as a table of functions.  Kernels know no torch and start no threads.
#pragma once

#include "../adam_rows.h"
#include "../lstm_problem.h"

namespace textclf_fast::cpu {

// Rows so few that a step waits for W_hh; and weights so few, in bytes, that a step which reads them is short: what
// threads wait for each other counts then.
constexpr int64_t kFewRows = 2;
constexpr int64_t kShortStep = int64_t(1) << 19;

// Threads that compute one direction of a layer together.  Each step is cut into parts; a thread takes its own part,
// and that of another which does not come, then waits until all are done.  So the work ends however many of the threads
// come, even one alone, and in whatever order.
struct Team {
  // How far a part has come, in phases: those that a thread has taken, and those that are done.  Each in a line of its
  // own: the others look at the first only when they have waited for the second.
  struct Progress {
    alignas(64) int64_t claimed = 0;
    alignas(64) int64_t finished = 0;
  };

  int64_t parts;
  Progress* progress;            // (parts)
  bool exceeds_cache = false;    // W_hh is more than a core's cache holds
  bool units_fit_cache = false;  // a part's share of W_hh, by units, fits a core's cache; all of W_hh does not
};

// A direction's weights: W_hh (4H, P), W_hr (P, H) where h is projected, W_ih (4H, I) where the input is.
struct WeightSizes {
  int64_t hidden, projected = 0, input = 0;  // 0: there is no W_hr, no W_ih

  int64_t width() const { return projected ? projected : hidden; }  // P
};
template <class T>
struct Weights {
  const T *w_hh, *w_hr = nullptr, *w_ih = nullptr;
};

template <class T>
struct KernelTable {
  // Number of T in the packed copy of one direction's weights, and the packing itself, one of forward_pieces resp.
  // backward_pieces at a time, so that threads can share it.
  int64_t (*forward_panel_size)(const WeightSizes& sizes);
  int64_t (*forward_pieces)(const WeightSizes& sizes);
  void (*pack_forward)(const Weights<T>& weights, const WeightSizes& sizes, int64_t piece, T* panels);
  int64_t (*backward_panel_size)(const WeightSizes& sizes);
  int64_t (*backward_pieces)(const WeightSizes& sizes);
  void (*pack_backward)(const Weights<T>& weights, const WeightSizes& sizes, int64_t piece, T* panels);

  // One direction, by each member of its team; and the bytes that the team needs as scratch, of whole lines.
  int64_t (*forward_scratch_bytes)(const LstmShape& shape);
  void (*forward)(const LstmForward<T>& problem, int64_t direction, const T* panels, char* scratch, const Team& team,
                  int64_t member);
  int64_t (*backward_scratch_bytes)(const LstmShape& shape, int64_t parts, bool has_index);
  void (*backward)(const LstmBackward<T>& problem, int64_t direction, const T* panels, char* scratch, const Team& team,
                   int64_t member);

  // The rows [first, last) of the problem, and the bytes that a call needs as scratch for up to `steps` missed steps.
  int64_t (*adam_scratch_bytes)(int64_t steps);
  void (*adam_rows)(const AdamRows<T>& problem, int64_t first, int64_t last, void* scratch);
};

// One declaration per file kernels_*.cpp.  These are called on every machine: they are compiled without the set's
// instructions and return constants.
#define TEXTCLF_DECLARE_KERNELS(isa)            \
  namespace isa {                               \
  template <class T>                            \
  const KernelTable<T>& kernels();              \
  template <>                                   \
  const KernelTable<float>& kernels<float>();   \
  template <>                                   \
  const KernelTable<double>& kernels<double>(); \
  }
TEXTCLF_DECLARE_KERNELS(generic)
#ifdef __x86_64__
TEXTCLF_DECLARE_KERNELS(avx2)
TEXTCLF_DECLARE_KERNELS(avx512)
// bfloat16 products; their other kernels are those of avx512.
namespace avx512_bf16 {
const KernelTable<BFloat16>& kernels();
}
namespace amx {
const KernelTable<BFloat16>& kernels();
}
#endif

// Those of the chosen set, see dispatch.cpp.
const char* isa_name();
int isa_number();
template <class T>
const KernelTable<T>& kernels();

// Whether the chosen set multiplies bfloat16; kernels<BFloat16>() is for such sets only.
bool has_bfloat16();

}  // namespace textclf_fast::cpu

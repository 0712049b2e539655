// The CPU kernels of one instruction set, as a table of functions.  Kernels know no torch and start no threads.
#pragma once

#include "../lstm_problem.h"

namespace textclf_fast::cpu {

// Rows [begin, end) of the batch (of grad_w_hh in weight_grad), in one direction: a job for one thread.  Jobs share
// nothing that they write.
struct RowRange {
  int64_t direction;
  int64_t begin;
  int64_t end;
};

// Threads that share one job where there are too few rows to share: each step is cut into parts, ranges of hidden
// units. A thread takes its own part of a step, then whatever part nobody has begun, then waits until all are done; so
// a job ends however many of its threads come, even one alone, and in whatever order.
struct Team {
  int64_t parts = 1;
  int64_t* claimed = nullptr;  // (parts), a cache line apart: the phase that is to be claimed next
  int64_t* done = nullptr;     // parts finished, of all phases

  static constexpr int64_t kStride = 64 / sizeof(int64_t);
};

template <class T>
struct KernelTable {
  // Number of T in the packed copy of one direction's W_hh, and the packing itself: units [begin, end) of
  // forward_blocks(H) resp. backward_groups(H), so that threads can share it.
  int64_t (*forward_panel_size)(int64_t hidden);
  int64_t (*forward_blocks)(int64_t hidden);
  void (*pack_forward)(const T* w_hh, int64_t hidden, int64_t begin, int64_t end, T* panels);
  int64_t (*backward_panel_size)(int64_t hidden);
  int64_t (*backward_groups)(int64_t hidden);
  void (*pack_backward)(const T* w_hh, int64_t hidden, int64_t begin, int64_t end, T* panels);

  // Number of T that a job over `rows` rows needs as scratch.
  int64_t (*scratch_size)(int64_t rows, int64_t hidden);
  void (*forward)(const LstmForward<T>& problem, RowRange range, const T* panels, T* scratch, const Team& team,
                  int64_t member);
  void (*backward)(const LstmBackward<T>& problem, RowRange range, const T* panels, T* scratch, const Team& team,
                   int64_t member);

  // Rows [begin, end) of one direction's (4H, H), and the number of T that it needs as scratch.
  int64_t (*weight_grad_scratch_size)(int64_t hidden);
  void (*weight_grad)(const LstmWeightGrad<T>& problem, RowRange range, T* scratch);
};

// One declaration per file kernels_*.cpp.
#define TEXTCLF_DECLARE_KERNELS(isa)     \
  namespace isa {                        \
  template <class T>                     \
  KernelTable<T> kernels();              \
  template <>                            \
  KernelTable<float> kernels<float>();   \
  template <>                            \
  KernelTable<double> kernels<double>(); \
  }
TEXTCLF_DECLARE_KERNELS(generic)
#ifdef __x86_64__
TEXTCLF_DECLARE_KERNELS(avx2)
TEXTCLF_DECLARE_KERNELS(avx512)
#endif

// Those of the chosen set, see dispatch.cpp.
const char* isa_name();
template <class T>
const KernelTable<T>& kernels();

}  // namespace textclf_fast::cpu

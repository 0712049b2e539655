// The recurrence with W_hh in int8, as a table of functions of one instruction set.  Kernels know no torch and start no
// threads.
#pragma once

#include "kernels.h"

namespace textclf_fast::cpu {

// W_hh quantised, a scale for each of its 4H rows, symmetrically: w = q * (largest |w| of the row) / 127, q in
// -127 .. 127.  It is laid out as the kernels read it, the same for every instruction set: units in blocks of 16,
// columns (H, padded with zeros to K, a multiple of 8) in fours, as one instruction takes four of them.
struct Int8Weights {
  static constexpr int64_t kUnits = 16;  // the lanes of 32 bits in AVX-512's vectors
  static constexpr int64_t kFour = 4;
  static constexpr int64_t kDepthStep = 8;  // two fours: the kernels sum even and odd ones by themselves
  // Above this a sum of products of 255 and 127, which is how VNNI forms them, could pass 2^31.
  static constexpr int64_t kMostHidden = int64_t(1) << 16;

  const int8_t* numbers;   // (D, blocks, K / 4, 4 gates, 16 units, 4 columns)
  const float* scales;     // (D, blocks, 4 gates, 16 units): what one of a sum of products is worth
  const int32_t* offsets;  // (D, blocks, 4 gates, 16 units): 128 times the sum of a row's q

  static constexpr int64_t blocks(int64_t hidden) { return (hidden + kUnits - 1) / kUnits; }
  static constexpr int64_t depth(int64_t hidden) { return (hidden + kDepthStep - 1) / kDepthStep * kDepthStep; }
  static constexpr int64_t block_size(int64_t hidden) { return depth(hidden) * 4 * kUnits; }
};

struct Int8Kernels {
  const char* name;
  // The bytes that a team needs as scratch, of whole lines; and one direction, from zero states, by each of its
  // members.
  int64_t (*scratch_bytes)(const LstmShape& shape);
  void (*forward)(const LstmForward<float>& problem, const Int8Weights& weights, int64_t direction, float* scratch,
                  const Team& team, int64_t member);
};

// One per file kernels_*.cpp.
namespace generic {
const Int8Kernels& int8_kernels();
}
#ifdef __x86_64__
namespace avx2 {
const Int8Kernels& int8_kernels();
}
namespace avx512 {
const Int8Kernels& int8_kernels();
}
namespace avx512vnni {
const Int8Kernels& int8_kernels();
}
#endif

// Those of the chosen set, see int8_dispatch.cpp.
const Int8Kernels& int8_kernels();

}  // namespace textclf_fast::cpu

// Where the positions of a padded batch lie in packed order, from lengths on the device: nobody has seen them.
#pragma once

#include "device.h"

namespace textclf_fast::cuda {

// A length outside of 1 .. T counts as the nearest within, but its row has no positions other than -1.
struct LayoutInPlace {
  const int64_t* lengths;  // (B)
  int64_t* positions;      // (T * B): the place of each packed position in the flattened padded batch, then -1
  int64_t* places;         // (T * B): the packed position of each of its places, -1 past the lengths
  int64_t* batch_sizes;    // (T)
  int64_t* order;          // (B): rows, longest first, equal ones in their order
  int64_t* ranks;          // (B): the inverse
  int32_t* starts;         // (T + 1): where steps begin, and N; for the launches themselves
  int steps;               // T
  int rows;                // B; T * B is below 2^31
  bool batch_first;        // the padded batch is (B, T), not (T, B)
};

// Two launches; the time of the first grows with (B + T) * B.
cudaError_t launch_layout_in_place(const LayoutInPlace& layout, cudaStream_t stream);

}  // namespace textclf_fast::cuda

// All kernels of one instruction set.  Included once for each, see simd.inl.
//
// The forward and the backward walk the steps one by one and, in a step, multiply a few rows (a tile) by a packed panel
// of W_hh.
//
// Forward: gates (rows, 4H) = table rows + h (rows, H) W_hh^T.  A panel holds the four gates of kLanes units, so that
// the tile's accumulators are just what the cell needs: its activations follow without another pass.
//
// Backward: grad_h (rows, H) = grad_gates (rows, 4H) W_hh.  A panel holds up to four vectors of columns.
//
// A projected h takes one more product a step, each way (lstm_projection.inl).
//
// The register budget: kTileRows * kTileVectors accumulators + kTileVectors of W + 1 broadcast.
//
// h and c live in scratch with rows padded to whole vectors (`stride`); padding lanes of the panels are zero, and what
// the padding lanes of h and c hold is never read back into a real lane.
#pragma once

#include "adam_rows.inl"
#include "chunk_grads.inl"
#include "lstm_backward.inl"
#include "lstm_forward.inl"
#include "panels.inl"
#include "team.inl"
#include "tiles.inl"

template <class T>
static constexpr KernelTable<T> kernel_table() {
  KernelTable<T> table{forward_panel_size<T>,
                       forward_pieces<T>,
                       pack_forward<T>,
                       backward_panel_size<T>,
                       backward_pieces<T>,
                       pack_backward<T>,
                       forward_scratch_bytes<T>,
                       forward<T>,
                       backward_scratch_bytes<T>,
                       backward<T>,
                       nullptr,
                       nullptr};
  if constexpr (sizeof(T) == sizeof(Accumulator<T>)) {  // the moments of bfloat16 weights would need another type
    table.adam_scratch_bytes = adam_scratch_bytes<T>;
    table.adam_rows = adam_rows<T>;
  }
  return table;
}

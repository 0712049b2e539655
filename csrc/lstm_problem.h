// One LSTM layer in the packed layout, as plain sizes and pointers: what every kernel, on every device, is told.
//
// Packed layout (that of torch.nn.utils.rnn.PackedSequence): the rows of a batch are sorted by length, longest first,
// and stored time-major; batch_sizes[t] rows are alive at step t and start at position offsets[t]. Letters: T steps, B
// rows, N positions = sum of lengths, D directions, H hidden units, P numbers of h, R rows of the gate table. Gate
// order is PyTorch's: i, f, g, o.  Direction 1 walks t downwards over the same positions.
//
// The input half of the gates is given: a table of it, or a row for each position.  Or the input itself is, beside W_ih
// (CPU alone): R rows of I numbers, each of which is multiplied once, into a table of gates; or, without an index, when
// a step multiplies both x and h, and no gates go through memory.
//
// P is H, unless h is projected (Sak, Senior and Beaufays, Long Short-Term Memory Based Recurrent Neural Network
// Architectures for Large Vocabulary Speech Recognition, 2014): h = W_hr m, where m = o * tanh(c) is the cell's output.
#pragma once

#include <cstdint>

namespace textclf_fast {

struct LstmShape {
  int64_t steps;               // T
  int64_t rows;                // B
  int64_t positions;           // N
  int64_t directions;          // D, 1 or 2
  int64_t hidden;              // H
  int64_t gate_rows;           // R; equal to N where there is no index
  const int64_t* batch_sizes;  // (T), non-increasing, >= 1
  const int64_t* offsets;      // (T + 1), offsets[0] = 0, offsets[T] = N
  int64_t projected = 0;       // P where h is projected; 0: it is not
  int64_t input = 0;           // I where the kernels project the input themselves, which excludes P; 0: gates are given

  int64_t width() const { return projected ? projected : hidden; }  // P
};

// The upper half of a float.
struct BFloat16 {
  uint16_t bits;
};

// What numbers of a type are summed in: sums, cell states and the input half of the gates.
template <class T>
struct AccumulatorOf {
  using type = T;
};
template <>
struct AccumulatorOf<BFloat16> {
  using type = float;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::type;

template <class T>
struct LstmForward {
  LstmShape shape;
  const Accumulator<T>* gates;  // (D, R, 4H): input half of every gate, biases included; null beside x alone
  const int64_t* index;         // (N): the row of `gates` that a position reads; null: row n for position n
  const T* w_hh;                // (D, 4H, P)
  const T* h0;                  // (D, B, P), or null for zero
  const T* c0;                  // (D, B, H), or null for zero
  T* output;                    // (N, D, P); null where it is not needed
  const int64_t* place;         // (N): the row of `output` that a position writes; null: row n for position n
  T* h_n;                       // (D, B, P)
  T* c_n;                       // (D, B, H)
  T* activations;               // (D, N, 4H): gates after their non-linearity, for the backward; null in inference
  T* cells;                     // (D, N, H): cell states, for the backward or the caller; else null
  const T* w_hr = nullptr;      // (D, P, H); null where h is not projected
  const T* x = nullptr;         // (R, I); null where the gates are given
  const T* w_ih = nullptr;      // (D, 4H, I), beside x
  const Accumulator<T>* bias = nullptr;   // (D, 4H), both biases, beside x; or null for none
  T* packed_output = nullptr;             // (N, D, P): as well as `output`, in packed order; where h is not projected
  Accumulator<T>* projected_x = nullptr;  // beside x: `gates`, for the kernels to write first; null: each step
                                          // multiplies its own positions' x, where there is no index
};

template <class T>
struct LstmBackward {
  LstmShape shape;
  const T* grad_output;                 // (N, D, P), or null for zero
  const T* grad_h_n;                    // (D, B, P), or null for zero
  const T* grad_c_n;                    // (D, B, H), or null for zero
  const T* grad_cells;                  // (D, N, H), or null for zero
  const T* activations;                 // (D, N, 4H)
  const T* cells;                       // (D, N, H)
  const T* output;                      // (N, D, P)
  const int64_t* index;                 // (N), as in the forward
  const T* w_hh;                        // (D, 4H, P)
  const T* h0;                          // (D, B, P)
  const T* c0;                          // (D, B, H)
  Accumulator<T>* grad_gates;           // (D, R, 4H), before their non-linearity; with an index: sums over positions.
                                        // Null beside x alone, and with an index where nothing needs it
  Accumulator<T>* grad_w_hh;            // (D, 4H, P); null where it is not needed
  T* grad_h0;                           // (D, B, P); on the CPU null where it and grad_c0 are not needed
  T* grad_c0;                           // (D, B, H)
  const T* w_hr = nullptr;              // (D, P, H); null where h is not projected
  Accumulator<T>* grad_w_hr = nullptr;  // (D, P, H); null where it is not needed
  const T* x = nullptr;                 // (R, I), as in the forward
  const T* w_ih = nullptr;              // (D, 4H, I)
  T* grad_x = nullptr;                  // (D, R, I), a share from each direction; null where it is not needed
  Accumulator<T>* grad_w_ih = nullptr;  // (D, 4H, I); null where it is not needed
  Accumulator<T>* grad_bias = nullptr;  // (D, 4H); null where it is not needed
  const int64_t* place = nullptr;       // (N): the row of `grad_output` that a position has; null: row n for position n
};

}  // namespace textclf_fast

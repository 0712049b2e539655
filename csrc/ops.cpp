// Every op of textclf_fast, one schema each.  Kernels register themselves: cpu/*.cpp for CPU, cuda/*.cu for CUDA;
// fake kernels and autograd are in textclf_fast/fake_kernels.py and ops.py.
//
// Letters: T steps, B rows, N positions = sum of lengths, D directions, I input, H hidden units, R gate rows, V
// vocabulary. 16-bit layers have gates, tables and their gradients in float32. The packed layout, the gate order and
// the direction of walk are described in lstm_problem.h.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(textclf_fast, m) {
  // One layer, forward, nothing kept for a backward.
  //   gates (D, R, 4H): the input half of the gates, both biases included; index (N) int64: the row of `gates` that a
  //   position reads (None: R = N, row n); batch_sizes (T) int64 on the CPU, or beside CUDA tensors on their device
  //   (N is what it adds up to at most, then); w_hh (D, 4H, H); h0, c0 (D, B, H)
  //   -> output (N, D * H), h_n (D, B, H), c_n (D, B, H)
  //   panels: what pack_recurrent made of these weights (None: packed in the call);
  //   need_output: False leaves output (0, D * H)
  //   w_hr (D, P, H): projects h to P numbers (None: it is not).  w_hh is (D, 4H, P) then, h0 and h_n (D, B, P), output
  //   (N, D * P); likewise in the ops below
  m.def(
      "lstm_inference(Tensor gates, Tensor? index, Tensor batch_sizes, Tensor w_hh, Tensor h0, Tensor c0, "
      "Tensor? panels=None, bool need_output=True, Tensor? w_hr=None) -> (Tensor, Tensor, Tensor)");

  // The same, and every position's cell state: cells (D, N, H).
  m.def(
      "lstm_cells_inference(Tensor gates, Tensor? index, Tensor batch_sizes, Tensor w_hh, Tensor h0, Tensor c0, "
      "Tensor? panels=None, Tensor? w_hr=None) -> (Tensor, Tensor, Tensor, Tensor)");

  // The layer on a padded batch of token ids, from zero states: all that a frozen classifier does, in one call.
  //   table (D, V, 4H): the input half of the gates of every token; ids (T, B), or (B, T) where batch_first, int64;
  //   lengths (B) int64, each in 1 .. T (None: all T); w_hh and panels as above
  //   -> output (T, B, D * H), or (B, T, D * H), zero past the lengths, or (0) unless need_output; h_n, c_n (D, B, H)
  m.def(
      "embedding_lstm_inference(Tensor table, Tensor ids, Tensor? lengths, bool batch_first, Tensor w_hh, "
      "Tensor? panels, bool need_output, Tensor? w_hr=None) -> (Tensor, Tensor, Tensor)");

  // W_hh in int8 for inference, each of its 4H rows with a scale of its own: w_hh (D, 4H, H) float32
  //   -> numbers int8, scales float32, offsets int32: laid out as cpu/int8_kernels.h says
  m.def("quantize_recurrent(Tensor w_hh) -> (Tensor, Tensor, Tensor)");

  // lstm_inference from zero states with W_hh in int8; gates float32, the rest as there.
  m.def(
      "lstm_int8_inference(Tensor gates, Tensor? index, Tensor batch_sizes, Tensor numbers, Tensor scales, "
      "Tensor offsets, bool need_output) -> (Tensor, Tensor, Tensor)");

  // embedding_lstm_inference with W_hh in int8; table float32, the rest as there.
  m.def(
      "embedding_lstm_int8_inference(Tensor table, Tensor ids, Tensor? lengths, bool batch_first, Tensor numbers, "
      "Tensor scales, Tensor offsets, bool need_output) -> (Tensor, Tensor, Tensor)");

  // The same as lstm_inference, and what the backward needs: activations (D, N, 4H), cells (D, N, H).
  m.def(
      "lstm_training(Tensor gates, Tensor? index, Tensor batch_sizes, Tensor w_hh, Tensor h0, Tensor c0, "
      "Tensor? w_hr=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");

  // The same once more, without a formula for autograd: what textclf_fast/ops.py calls inside its own.
  m.def(
      "lstm_training_forward(Tensor gates, Tensor? index, Tensor batch_sizes, Tensor w_hh, Tensor h0, Tensor c0, "
      "Tensor? w_hr=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");

  // Gradients of lstm_training; an undefined incoming gradient is zero and costs nothing.  grad_cells (D, N, H): of the
  // cell states, where something was made of them.
  //   -> grad_gates (D, R, 4H; empty unless need_gates), grad_w_hh (D, 4H, H; empty unless need_w_hh), grad_h0, grad_c0
  //   (D, B, H), grad_w_hr (D, P, H; empty unless need_w_hr)
  m.def(
      "lstm_backward(Tensor? grad_output, Tensor? grad_h_n, Tensor? grad_c_n, Tensor activations, Tensor cells, "
      "Tensor output, Tensor? index, SymInt gate_rows, Tensor batch_sizes, Tensor w_hh, Tensor h0, Tensor c0, "
      "bool need_w_hh, Tensor? grad_cells=None, Tensor? w_hr=None, bool need_w_hr=False, bool need_gates=True) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");

  // A layer whose input the kernels project themselves, so that no gates go through memory: on the CPU, float32 or
  // float64, without a projection of h.
  //   x (R, I); index (N): the row of x that a position reads (None: R = N, row n), each row being multiplied once;
  //   w_ih (D, 4H, I); bias (D, 4H): the sum of both (None: none); the rest as in lstm_inference.
  //   panels: what pack_recurrent made of w_hh and w_ih
  m.def(
      "lstm_layer_inference(Tensor x, Tensor? index, Tensor batch_sizes, Tensor w_ih, Tensor w_hh, Tensor? bias, "
      "Tensor h0, Tensor c0, Tensor? panels=None, bool need_output=True) -> (Tensor, Tensor, Tensor)");
  m.def(
      "lstm_layer_training(Tensor x, Tensor? index, Tensor batch_sizes, Tensor w_ih, Tensor w_hh, Tensor? bias, "
      "Tensor h0, Tensor c0) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");

  // Its gradients: each but the last two is empty unless it is needed.
  //   -> grad_x (D, R, I), a share from each direction; grad_w_ih (D, 4H, I), grad_w_hh (D, 4H, H), grad_bias (D, 4H),
  //   grad_h0, grad_c0 (D, B, H)
  m.def(
      "lstm_layer_backward(Tensor? grad_output, Tensor? grad_h_n, Tensor? grad_c_n, Tensor activations, Tensor cells, "
      "Tensor output, Tensor x, Tensor? index, Tensor batch_sizes, Tensor w_ih, Tensor w_hh, Tensor h0, Tensor c0, "
      "bool need_x, bool need_w_ih, bool need_w_hh, bool need_bias) -> (Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor)");

  // An embedding and a layer of one direction, from zero states, as training has it: on the CPU, float32 or float64.
  //   table (V, I), the embedding's weight; ids (N) int64 in packed order; w_ih (4H, I), w_hh (4H, H), b_ih and b_hh
  //   (4H; or None both)
  //   -> output (N, H), h_n, c_n (1, B, H); and for the backward: activations (1, N, 4H), cells (1, N, H), x (U, I),
  //   the vectors of the distinct tokens (U) int64, index (N) int64 with tokens[index] == ids
  m.def(
      "embedding_lstm_training(Tensor table, Tensor ids, Tensor batch_sizes, Tensor w_ih, Tensor w_hh, Tensor? b_ih, "
      "Tensor? b_hh) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");

  // The same from a padded batch: ids (T, B), or (B, T) where batch_first; lengths (B) int64, each in 1 .. T, or all T
  //   -> output (T, B, H), or (B, T, H), zero past the lengths; without need_output it is in packed order, (N, H), for
  //   the backward alone; h_n, c_n, activations, cells, x, tokens, index as above; batch_sizes (longest length);
  //   positions (N), the places of packed positions in output, flattened, none where output is in packed order;
  //   order (B), the row at each place of the packed order, none where they agree; beside positions the output in
  //   packed order (N, H), for the backward: the caller may change the other
  m.def(
      "embedding_lstm_padded_training(Tensor table, Tensor ids, Tensor? lengths, bool batch_first, bool need_output, "
      "Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");

  // The gradients of either, each empty unless it is needed.  padding_idx: the token that gets none, -1 for none.
  // output in packed order.  positions and order are the second's; grad_output and those of the states are in its forms
  // then.
  //   -> grad_table (V, I), grad_w_ih (4H, I), grad_w_hh (4H, H), grad_bias (4H), of either bias
  m.def(
      "embedding_lstm_backward(Tensor? grad_output, Tensor? grad_h_n, Tensor? grad_c_n, Tensor activations, Tensor "
      "cells, Tensor output, Tensor x, Tensor tokens, Tensor index, Tensor batch_sizes, Tensor? positions, Tensor? "
      "order, Tensor w_ih, Tensor w_hh, SymInt vocab_size, int padding_idx, bool need_table, bool need_w_ih, bool "
      "need_w_hh, bool need_bias) "
      "-> (Tensor, Tensor, Tensor, Tensor)");

  // W_hh, W_hr where h is projected, and W_ih for lstm_layer_inference, in the order in which the CPU's forward reads
  // them, for the chosen instruction set: opaque, valid in this process.
  m.def("pack_recurrent(Tensor w_hh, Tensor? w_hr=None, Tensor? w_ih=None) -> Tensor");

  // The distinct token ids of a batch, in order of first appearance, and for every position its place among them.
  //   ids (N) int64 -> tokens (U) int64, index (N) int64 with tokens[index] == ids
  m.def("distinct_tokens(Tensor ids, int vocab_size) -> (Tensor, Tensor)");

  // Rows of a table (V, E) by their numbers (U) int64, distinct, and the gradient of that: a table of zeros but for
  // them.
  //   no_grad: the row that gets no gradient, -1 for none
  m.def("gather_rows(Tensor table, Tensor rows, int no_grad) -> Tensor");
  m.def("scatter_rows(Tensor values, Tensor rows, int count, int skip) -> Tensor");

  // An uninitialized tensor of this size, of the dtype and on the device of `like`, in memory kept from step to step
  // where it is large: for what does not outlive a training step.
  m.def("new_passing(Tensor like, int[] size) -> Tensor");

  // Where the real positions of a padded batch are, in packed order.
  //   lengths (B) int64, each in 1 .. steps; position (t, b) of the batch is at t * step_stride + b * row_stride
  //   -> positions (N) int64, batch_sizes (max length) int64, sorted_indices (B) int64, unsorted_indices (B) int64
  m.def(
      "packed_layout(Tensor lengths, SymInt steps, SymInt step_stride, SymInt row_stride) "
      "-> (Tensor, Tensor, Tensor, Tensor)");

  // The same on CUDA tensors alone, without a look at the lengths from the host: what is not known is as large as it
  // may be.
  //   lengths (B) int64; those outside of 1 .. steps have no positions but -1. Strides (B, 1) or, batch-first,
  //   (1, steps); steps * B below 2^31
  //   -> positions (steps * B) int64, -1 at the end; places (steps * B) int64: the packed position of each place of the
  //   batch, -1 past the lengths; batch_sizes (steps) int64, zero at the end; sorted_indices, unsorted_indices (B)
  //   int64
  m.def(
      "layout_in_place(Tensor lengths, SymInt steps, SymInt step_stride, SymInt row_stride) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");

  // The rows of an embedding among `ids` that have not had all of the first `steps` steps of Adam, each once.
  //   ids (any shape) int64; done (V) int64: how many steps each row has had -> rows (U) int64, in order of appearance
  m.def("stale_rows(Tensor ids, Tensor done, int steps) -> Tensor");

  // Adam on some rows: all of the first `steps` steps that a row has not had, without a gradient but for the last of
  // them, which has grad (U, E) where it is given.
  //   param, exp_avg, exp_avg_sq (V, E); done (V) int64; rows (U) int64, distinct;
  //   history (S, 8) float64: the numbers of each step, see adam_rows.h
  m.def(
      "adam_rows_(Tensor(a!) param, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, Tensor(d!) done, Tensor rows, "
      "Tensor? grad, Tensor history, int steps) -> ()");
}

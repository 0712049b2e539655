"""Layers under the options of :class:`textclf_fast.nn.options.LSTMOptions`, and calls that ask for cell states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from textclf_fast import ops
from textclf_fast.nn.checkpointed import lstm_checkpointed
from textclf_fast.nn.in_onnx import refuse_in_onnx
from textclf_fast.nn.layout import (
    PackedLayout,
    packed_sequence_layout,
    padded_layout,
    permute_rows,
    to_packed,
    to_padded,
)
from textclf_fast.nn.on_cuda import cuda_kernels_pay
from textclf_fast.nn.options import as_pair
from textclf_fast.nn.projection import project, weights_each
from textclf_fast.nn.stack import kernels_apply
from textclf_fast.nn.stepwise import DirectionWeights, LayerNorms, StepOptions, lstm_stepwise
from textclf_fast.nn.stepwise_in_graphs import stepwise_in_graph

if TYPE_CHECKING:
    from textclf_fast.nn.lstm import FusedLSTM, States


# ---- Parameters ----------------------------------------------------------------------------------


def _own_parameters(lstm: FusedLSTM) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Names, shapes and first values of the parameters that options add to nn.LSTM's."""
    directions, hidden = 2 if lstm.bidirectional else 1, lstm.hidden_size
    if lstm.options.learn_initial_state:
        layers = lstm.num_layers * directions
        yield "h_0", (layers, 1, lstm.proj_size or hidden), 0.0
        yield "c_0", (layers, 1, hidden), 0.0
    if lstm.options.layer_norm:
        for layer in range(lstm.num_layers):
            for suffix in ("", "_reverse")[:directions]:
                yield f"norm_ih_l{layer}{suffix}", (4 * hidden,), 1.0
                yield f"norm_hh_l{layer}{suffix}", (4 * hidden,), 1.0
                yield f"norm_cell_l{layer}{suffix}", (hidden,), 1.0
                yield f"norm_cell_bias_l{layer}{suffix}", (hidden,), 0.0


def add_parameters(lstm: FusedLSTM, like: nn.LSTM | None = None) -> None:
    """Gives the module the parameters that its options want: those of ``like`` where it has them, else new ones."""
    weight: Tensor = lstm.weight_hh_l0  # type: ignore[assignment]
    for name, shape, value in _own_parameters(lstm):
        found = None if like is None else getattr(like, name, None)
        setattr(lstm, name, nn.Parameter(weight.new_full(shape, value)) if found is None else found)


def reset_parameters(lstm: FusedLSTM) -> None:
    """Gives them their first values again."""
    for name, _, value in _own_parameters(lstm):
        nn.init.constant_(getattr(lstm, name), value)


def learned_states(lstm: FusedLSTM, batch: Tensor | PackedSequence, row_dim: int) -> States | None:
    """The learned initial states of a batch's rows, of which one has ``row_dim`` dimensions; None without such."""
    if not lstm.options.learn_initial_state:
        return None
    dtype = lstm._flat_weights[0].dtype  # type: ignore[union-attr]  # that which autocast lowers the others to
    h_0: Tensor = lstm.h_0.to(dtype)  # type: ignore[assignment]
    c_0: Tensor = lstm.c_0.to(dtype)  # type: ignore[assignment]
    if isinstance(batch, PackedSequence):
        rows = packed_sequence_layout(batch).rows
    elif batch.dim() == row_dim:
        return h_0.squeeze(1), c_0.squeeze(1)
    elif batch.dim() == row_dim + 1:
        rows = batch.size(0 if lstm.batch_first else 1)
    else:
        return None  # refused later
    return h_0.expand(-1, rows, -1).contiguous(), c_0.expand(-1, rows, -1).contiguous()


# ---- Forms of a batch ----------------------------------------------------------------------------


class Form(NamedTuple):
    """How the caller gave a batch, and so wants results.

    Attributes:
        layout: where its positions are.
        steps: T of a padded batch; 0 for a PackedSequence.
        batch_first: whether a padded batch is (B, T, ...).
        one_row: whether the batch dimension was left out.
    """

    layout: PackedLayout
    steps: int
    batch_first: bool
    one_row: bool

    def restore(self, packed: Tensor) -> Tensor | PackedSequence:
        """(N, C) in the caller's form."""
        layout = self.layout
        if not self.steps:
            return PackedSequence(packed, layout.batch_sizes, layout.sorted_indices, layout.unsorted_indices)
        padded = to_padded(packed, layout, self.steps, layout.rows, self.batch_first)
        return padded.squeeze(0 if self.batch_first else 1) if self.one_row else padded

    def restore_state(self, state: Tensor) -> Tensor:
        """(L * D, B, C), in the caller's order, in their form."""
        state = permute_rows(state, self.layout.unsorted_indices)
        return state.squeeze(1) if self.one_row else state


def unpack_form(
    batch: Tensor | PackedSequence, lengths: Tensor | Sequence[int] | None, hx: Any, batch_first: bool, row_dim: int
) -> tuple[Tensor, Form, Any]:
    """The batch in packed order, its form, and hx with a batch dimension.

    Args:
        batch: as the modules' forward takes it; one row has ``row_dim`` dimensions.

    Raises:
        ValueError: another number of dimensions; lengths beside a batch that has none or its own.
        RuntimeError: no steps; states of another number of dimensions; and whatever the layout refuses.
    """
    if isinstance(batch, PackedSequence):
        if lengths is not None:
            raise ValueError("lengths: expected None beside a PackedSequence, which has its own")
        return batch.data, Form(packed_sequence_layout(batch), 0, batch_first, False), hx
    one_row = batch.dim() == row_dim
    if not one_row and batch.dim() != row_dim + 1:
        raise ValueError(
            f"input: expected {row_dim + 1} dimensions, or {row_dim} for one row, got shape {tuple(batch.shape)}"
        )
    if one_row and lengths is not None:
        raise ValueError("lengths: expected None beside one row without a batch dimension")
    if hx is not None:
        want = 2 if one_row else 3
        if any(state.dim() != want for state in hx):
            raise RuntimeError(f"hx: expected {want}-D states, got {' and '.join(f'{s.dim()}-D' for s in hx)}")
    if one_row:
        batch = batch.unsqueeze(0 if batch_first else 1)
        hx = None if hx is None else tuple(state.unsqueeze(1) for state in hx)
    rows, steps = batch.shape[:2] if batch_first else (batch.size(1), batch.size(0))
    if steps == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    layout = padded_layout(lengths, steps, rows, batch_first)
    return to_packed(batch, layout, batch_first), Form(layout, steps, batch_first, one_row), hx


def forward_extended(
    lstm: FusedLSTM,
    input: Tensor | PackedSequence,
    hx: States | None,
    lengths: Tensor | Sequence[int] | None,
    return_cell_states: bool,
) -> tuple[Any, ...]:
    """FusedLSTM.forward under options that change its layers, or with cell states for the caller."""
    data, form, hx = unpack_form(input, lengths, hx, lstm.batch_first, row_dim=2)
    lstm.check_input(data, form.layout.batch_sizes)
    output, h_n, c_n, cells = run_layers_extended(lstm, data, None, form.layout, hx, return_cell_states)
    states = form.restore_state(h_n), form.restore_state(c_n)
    if return_cell_states:
        return form.restore(output), states, form.restore(cells)
    return form.restore(output), states


# ---- Layers --------------------------------------------------------------------------------------


def run_layers_extended(
    lstm: FusedLSTM, rows: Tensor, index: Tensor | None, layout: PackedLayout, hx: States | None, need_cells: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All layers under the module's options.

    Args:
        lstm: its ``_flat_weights`` up to date.
        rows: (R, I), the first layer's input.
        index: (N,) the row that each position reads, or None where R is N.
        layout: where the positions are.
        hx: initial states in the caller's order, or None.
        need_cells: whether the last layer's cell states are wanted.

    Returns:
        output (N, D * P), h_n and c_n in packed order, and cells (N, D * H), or empty where they are not wanted.
    """
    if rows.is_cpu and torch.is_autocast_enabled("cpu"):  # what it lowers has been lowered
        with torch.autocast("cpu", enabled=False):
            return run_layers_extended(lstm, rows, index, layout, hx, need_cells)
    refuse_in_onnx(lstm)
    options, training, last = lstm.options, lstm.training, lstm.num_layers - 1
    directions = 2 if lstm.bidirectional else 1
    if torch.is_grad_enabled():
        lstm._panels.clear()
    h0, c0 = lstm._initial_states(lstm._flat_weights[0], layout, hx)  # type: ignore[arg-type]
    locked_rates = as_pair(options.variational_dropout) if training else (0.0, 0.0)
    states_h, states_c = [], []
    for layer in range(lstm.num_layers):
        if layer > 0 and lstm.dropout > 0:
            rows = functional.dropout(rows, lstm.dropout, training)
        if locked_rates[layer > 0]:
            rows, index = _lock_dropout(rows, index, layout, locked_rates[layer > 0]), None
        own_h0, own_c0 = (state.narrow(0, layer * directions, directions) for state in (h0, c0))
        rows, h_n, c_n, cells = _run_layer(
            lstm, layer, rows, index, layout.batch_sizes, own_h0, own_c0, need_cells and layer == last
        )
        index = None
        states_h.append(h_n)
        states_c.append(c_n)
    return rows, torch.cat(states_h), torch.cat(states_c), cells.transpose(0, 1).flatten(1)


def _lock_dropout(rows: Tensor, index: Tensor | None, layout: PackedLayout, rate: float) -> Tensor:
    """(N, I) with one mask a row of the batch, drawn in the caller's order."""
    if index is not None:
        rows = rows.index_select(0, index)
    mask = functional.dropout(rows.new_ones(1, layout.rows, rows.size(1)), rate)
    sizes = layout.batch_sizes
    row = torch.arange(rows.size(0)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return rows * permute_rows(mask, layout.sorted_indices)[0].index_select(0, row.to(rows.device))


def _run_layer(
    lstm: FusedLSTM,
    layer: int,
    rows: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    h0: Tensor,
    c0: Tensor,
    need_cells: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One layer, in whichever way there is: output (N, D * P), h_n, c_n and cells (D, N, H), empty where not needed."""
    options, training = lstm.options, lstm.training
    directions, each = 2 if lstm.bidirectional else 1, weights_each(lstm)
    start = layer * directions * each
    flat: Any = lstm._flat_weights[start : start + directions * each]
    weights: list[list[Tensor]] = [flat[d * each : (d + 1) * each] for d in range(directions)]
    masked = training and options.weight_dropout > 0
    if masked:
        for own in weights:
            own[1] = functional.dropout(own[1], options.weight_dropout)
    without_cells = h0.new_empty(directions, 0, lstm.hidden_size)
    by_kernels = rows.is_cuda == h0.is_cuda and kernels_apply(lstm, h0, c0)
    if by_kernels and rows.is_cuda and not need_cells:  # which nobody else has
        by_kernels = cuda_kernels_pay(lstm, h0.size(1), batch_sizes.numel())
    if not options.steps_differ and by_kernels:
        if options.checkpoint_every and rows.is_cpu and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            named = [_named(lstm, layer, d, own) for d, own in enumerate(weights)]
            rows = rows.to(h0.dtype)
            return lstm_checkpointed(rows, index, batch_sizes, named, h0, c0, options.checkpoint_every, need_cells)
        w_hh = torch.stack([own[1] for own in weights])
        w_hr = torch.stack([own[-1] for own in weights]) if lstm.proj_size else None
        kept = not (masked or torch.is_grad_enabled() or torch.compiler.is_compiling())
        panels = lstm._panels.get(lstm, layer) if kept else None
        gates = project(rows, lstm, layer)
        if need_cells:
            return ops.lstm_with_cells(gates, index, batch_sizes, w_hh, h0, c0, panels, w_hr)
        return *ops.lstm(gates, index, batch_sizes, w_hh, h0, c0, panels, w_hr=w_hr), without_cells
    if not (options.steps_differ or need_cells) and ops.transforms_are_off():
        data = rows if index is None else rows.index_select(0, index)
        flat = [w for own in weights for w in own]  # masked
        hx = (h0.contiguous(), c0.contiguous())  # cuDNN asks for it
        found = torch._VF.lstm(data, batch_sizes, hx, flat, lstm.bias, 1, 0.0, training, lstm.bidirectional)
        return *found, without_cells
    zoneout_h, zoneout_c = as_pair(options.zoneout)
    step = StepOptions(options.recurrent_dropout if training else 0.0, zoneout_h, zoneout_c, training)
    named = [_named(lstm, layer, d, own) for d, own in enumerate(weights)]
    in_graph = torch.compiler.is_compiling() and rows.is_cpu and not ops.transformed()
    run = stepwise_in_graph if in_graph else lstm_stepwise
    return run(rows, index, batch_sizes, named, h0, c0, step)


def _named(lstm: FusedLSTM, layer: int, direction: int, own: list[Tensor]) -> DirectionWeights:
    """From nn.LSTM's list of one direction's weights; both biases as one, summed as :func:`project` does."""
    bias = norms = None
    if lstm.bias:
        dtype = ops.gates_dtype(own[2].dtype)
        bias = own[2].to(dtype) + own[3].to(dtype)
    if lstm.options.layer_norm:
        suffix = f"_l{layer}{'_reverse' if direction else ''}"
        kinds = ("norm_ih", "norm_hh", "norm_cell", "norm_cell_bias")
        norms = LayerNorms(*(getattr(lstm, kind + suffix).to(own[0].dtype) for kind in kinds))
    return DirectionWeights(own[0], own[1], bias, own[-1] if lstm.proj_size else None, norms)

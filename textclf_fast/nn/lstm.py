"""FusedLSTM: nn.LSTM with its forward and backward on our kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from textclf_fast.nn import extended
from textclf_fast.nn.in_onnx import lstm_in_onnx, writes_onnx
from textclf_fast.nn.layout import (
    PackedLayout,
    packed_sequence_layout,
    padded_layout,
    permute_rows,
    to_packed,
    to_padded,
)
from textclf_fast.nn.lstm_base import LSTMBase
from textclf_fast.nn.on_cuda import cuda_kernels_pay
from textclf_fast.nn.options import DEFAULTS, LSTMOptions
from textclf_fast.nn.stack import (
    RecurrentPanels,
    autocast_lowers,
    kernels_apply,
    lower_states,
    lowered,
    reference_applies,
    run_layers,
)

States = tuple[Tensor, Tensor]


class FusedLSTM(LSTMBase):
    """A drop-in for :class:`torch.nn.LSTM`: same arguments, parameters, state_dict, errors and results.

    Beyond nn.LSTM, ``forward`` takes ``lengths``: rows of different lengths in one padded batch, unsorted, with no
    packing by the caller and no work done for the padding; and ``return_cell_states``. The constructor takes, by
    keyword, the options of :class:`textclf_fast.nn.options.LSTMOptions`, where they are described.

    What the kernels do not cover (see :func:`textclf_fast.nn.stack.kernels_apply`) takes PyTorch's own path, so that
    every call that nn.LSTM answers is answered.

    Source of the method: S. Hochreiter and J. Schmidhuber, Long Short-Term Memory, Neural Computation 9(8), 1997,
    with the forget gate of F. Gers, J. Schmidhuber and F. Cummins, Learning to Forget, 2000; proj_size: H. Sak, A.
    Senior and F. Beaufays, Long Short-Term Memory Based Recurrent Neural Network Architectures for Large Vocabulary
    Speech Recognition, 2014. Equations as in the docs of nn.LSTM.
    """

    # Of the class: instances have their own where they are not these.
    options: LSTMOptions = DEFAULTS

    def __init__(
        self,
        *args: Any,
        weight_dropout: float = 0.0,
        variational_dropout: float | tuple[float, float] = 0.0,
        learn_initial_state: bool = False,
        checkpoint_every: int | None = None,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        layer_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        options = LSTMOptions(
            weight_dropout,
            variational_dropout,
            learn_initial_state,
            checkpoint_every,
            recurrent_dropout,
            zoneout,
            layer_norm,
        )
        super().__init__(*args, **kwargs)
        self._set_options(options)

    def _set_options(self, options: LSTMOptions, like: nn.LSTM | None = None) -> None:
        if options != DEFAULTS:
            self.options = options
            extended.add_parameters(self, like)

    def reset_parameters(self) -> None:
        """As nn.LSTM does; gains are one again, their biases and learned initial states zero."""
        super().reset_parameters()
        extended.reset_parameters(self)

    def extra_repr(self) -> str:
        """nn.LSTM's arguments, and the options that are set."""
        shown = super().extra_repr()
        return shown if self.options is DEFAULTS else f"{shown}, {self.options}"

    @property
    def _panels(self) -> RecurrentPanels:
        # Made when first asked for: instances come about in more ways than the constructor (copies, old pickles).
        try:
            return self.__dict__["_kept_panels"]
        except KeyError:
            return self.__dict__.setdefault("_kept_panels", RecurrentPanels())

    def _update_flat_weights(self) -> None:
        own = self._parameters
        # As nn.LSTM does, but for the usual case: looking each weight up as an attribute takes five times as long.
        if not all(own.get(name) is w for name, w in zip(self._flat_weights_names, self._flat_weights, strict=True)):
            super()._update_flat_weights()

    def _apply(self, fn: Any, recurse: bool = True) -> FusedLSTM:
        self._panels.clear()
        return super()._apply(fn, recurse)

    @classmethod
    def from_lstm(cls, lstm: nn.LSTM, **options: Any) -> FusedLSTM:
        """A FusedLSTM that shares the parameters of ``lstm``; ``lstm`` itself where it is one already.

        With ``options``, those of the constructor, it is a new one with them; a FusedLSTM's own stay unless given.

        Raises:
            ValueError: weights under torch.nn.utils.parametrize, whose classes cannot be shared; a bad option.
        """
        if isinstance(lstm, cls) and not options:
            return lstm
        if parametrize.is_parametrized(lstm):
            raise ValueError("lstm: its weights are parametrized; parametrize a FusedLSTM instead")
        fused = cls(
            lstm.input_size,
            lstm.hidden_size,
            lstm.num_layers,
            lstm.bias,
            lstm.batch_first,
            bidirectional=lstm.bidirectional,
            proj_size=lstm.proj_size,
            device="meta",
        )
        fused.dropout = lstm.dropout
        for name in lstm._flat_weights_names:
            setattr(fused, name, getattr(lstm, name))
        fused._set_options(replace(getattr(lstm, "options", DEFAULTS), **options), lstm)
        return fused.train(lstm.training)

    @overload
    def forward(
        self,
        input: Tensor,
        hx: States | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        return_cell_states: Literal[False] = False,
    ) -> tuple[Tensor, States]: ...

    @overload
    def forward(
        self,
        input: PackedSequence,
        hx: States | None = None,
        lengths: None = None,
        *,
        return_cell_states: Literal[False] = False,
    ) -> tuple[PackedSequence, States]: ...

    @overload
    def forward(
        self,
        input: Any,
        hx: States | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        return_cell_states: Literal[True],
    ) -> tuple[Any, States, Any]: ...

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: States | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        return_cell_states: bool = False,
    ) -> tuple[Any, ...]:
        """Runs the layers.

        Args:
            input: (T, B, I); (B, T, I) where batch_first; (T, I) for one row; or a PackedSequence.
            hx: h_0 (L * D, B, H or P) and c_0 (L * D, B, H), zero when absent; without B for one row.
            lengths: B integers in 1 .. T. Output rows past a length are zero; h_n and c_n are those of each row's last
                real step (reverse direction: its first). Without, every position counts, as in nn.LSTM.
            return_cell_states: whether c of every step is wanted, too.

        Returns:
            output in the form of the input, (T, B, D * H), and (h_n, c_n), each (L * D, B, H); where proj_size is P,
            output and h_n have P for H. With return_cell_states, a third: the last layer's c of every step, (T, B,
            D * H), in the form of output, zero past the lengths; it can be differentiated as output can.

        Raises:
            TypeError: lengths that are not integers.
            ValueError: an input of another dtype or number of dimensions, a wrong number of lengths.
            RuntimeError: sizes that do not fit, a length out of range, a PackedSequence that contradicts itself.
                Where our kernels compute on a GPU (:mod:`textclf_fast.nn.on_cuda`), lengths that are there stay there
                in inference, unseen: a row whose length is out of range is NaN then.
        """
        if hx is None and not return_cell_states and isinstance(input, Tensor | PackedSequence):
            found = self._panels.frozen.run(self, input, lengths)
            if found is not None:
                return found
        self._update_flat_weights()
        if isinstance(input, Tensor) and autocast_lowers(self, input):
            with torch.autocast("cpu", enabled=False):
                input, hx = input.to(torch.bfloat16), lower_states(hx)
                return lowered(self)._forward(input, hx, lengths, return_cell_states)
        return self._forward(input, hx, lengths, return_cell_states)

    def _forward(
        self,
        input: Tensor | PackedSequence,
        hx: States | None,
        lengths: Tensor | Sequence[int] | None,
        return_cell_states: bool,
    ) -> tuple[Any, ...]:
        """forward with ``_flat_weights`` as they are."""
        if return_cell_states or self.options is not DEFAULTS:
            hx = extended.learned_states(self, input, 2) if hx is None else hx
            if return_cell_states or self.options.change_layers(self.training):
                return extended.forward_extended(self, input, hx, lengths, return_cell_states)
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError("lengths: expected None beside a PackedSequence, which has its own")
            return self._forward_packed(input, hx)
        return self._forward_padded(input, hx, lengths)

    def _forward_packed(self, packed: PackedSequence, hx: States | None) -> tuple[PackedSequence, States]:
        layout = packed_sequence_layout(packed)
        self.check_input(packed.data, layout.batch_sizes)
        output, states = self._run(packed.data, layout, hx)
        return PackedSequence(output, layout.batch_sizes, layout.sorted_indices, layout.unsorted_indices), states

    def _forward_padded(
        self, input: Tensor, hx: States | None, lengths: Tensor | Sequence[int] | None
    ) -> tuple[Tensor, States]:
        if input.dim() != 3 or input.numel() == 0 or not kernels_apply(self, input):
            return self._forward_unusual(input, hx, lengths)
        if lengths is None and input.is_cuda and not self._pays_on_cuda(input, dense_floats=True):
            return super().forward(input, hx)
        if hx is not None:
            self._check_states_batched(hx)
        known_to_apply = lengths is None or input.is_cpu or self._pays_on_cuda(input)
        return self._pack_and_run(input, hx, lengths, known_to_apply)

    def _pays_on_cuda(self, input: Tensor, dense_floats: bool = False) -> bool:
        rows, steps = input.shape[:2] if self.batch_first else (input.size(1), input.size(0))
        return cuda_kernels_pay(self, rows, steps, dense_floats)

    def _pack_and_run(
        self, input: Tensor, hx: States | None, lengths: Tensor | Sequence[int] | None, known_to_apply: bool = False
    ) -> tuple[Tensor, States]:
        self.check_input(input, None)
        rows, steps = input.shape[:2] if self.batch_first else (input.size(1), input.size(0))
        device = input.device if known_to_apply and input.is_cuda else None
        layout = padded_layout(lengths, steps, rows, self.batch_first, device)
        # On the GPU, where nobody knows how many positions there are, packed copies would be as large as the batch.
        index = layout.positions if layout.places is not None else None
        packed = input.flatten(0, 1) if index is not None else to_packed(input, layout, self.batch_first)
        output, states = self._run(packed, layout, hx, known_to_apply, index)
        return to_padded(output, layout, steps, rows, self.batch_first), states

    def _forward_unusual(
        self, input: Tensor, hx: States | None, lengths: Tensor | Sequence[int] | None
    ) -> tuple[Tensor, States]:
        """One row without a batch dimension; transforms; what we do not cover; and every input that nn.LSTM refuses."""
        in_onnx = writes_onnx(self)
        run = partial(lstm_in_onnx, self) if in_onnx else self._pack_and_run
        if lengths is not None:
            if input.dim() != 3:
                raise ValueError(f"lengths: expected a batched 3-D input beside it, got {input.dim()}-D")
            if torch.onnx.is_in_onnx_export() and not in_onnx:
                return self._forward_in_onnx_export(input, hx, torch.as_tensor(lengths))
            return run(input, hx, lengths)
        ours = in_onnx or kernels_apply(self, input) or reference_applies(self, dense=True)
        if input.dim() not in (2, 3) or input.numel() == 0 or not ours:
            return super().forward(input, hx)
        if input.dim() == 3:
            if hx is not None:
                self._check_states_batched(hx)
            return run(input, hx, None)
        if hx is not None and (hx[0].dim() != 2 or hx[1].dim() != 2):
            raise RuntimeError(
                "For unbatched 2-D input, hx and cx should also be 2-D "
                f"but got ({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"
            )
        batch_dim = 0 if self.batch_first else 1
        one_row = input.unsqueeze(batch_dim)
        if input.is_cuda and kernels_apply(self, input) and not self._pays_on_cuda(one_row, dense_floats=True):
            return super().forward(input, hx)
        states = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        output, (h_n, c_n) = run(one_row, states, None)
        return output.squeeze(batch_dim), (h_n.squeeze(1), c_n.squeeze(1))

    def _forward_in_onnx_export(self, input: Tensor, hx: States | None, lengths: Tensor) -> tuple[Tensor, States]:
        """In the functions that PyTorch's exporter by tracing knows how to write as lengths of an ONNX LSTM."""
        packed = pack_padded_sequence(input, lengths, self.batch_first, enforce_sorted=False)
        output, states = super().forward(packed, hx)
        return pad_packed_sequence(output, self.batch_first)[0], states

    def _run(
        self,
        data: Tensor,
        layout: PackedLayout,
        hx: States | None,
        known_to_apply: bool = False,
        index: Tensor | None = None,
    ) -> tuple[Tensor, States]:
        """(N, I) and states in the caller's order -> (N, D * P) and states in the caller's order.

        ``known_to_apply``: that our kernels are known to be the way for this input. (The states are checked to be like
        it.) ``index`` (N,), beside it alone: the row of ``data`` that each position reads.
        """
        h0, c0 = self._initial_states(data, layout, hx)
        by_kernels = known_to_apply or kernels_apply(self, data, h0, c0)
        if by_kernels and data.is_cuda and not known_to_apply:
            by_kernels = cuda_kernels_pay(self, layout.rows, layout.batch_sizes.numel())
        if by_kernels or reference_applies(self, dense=False):
            panels = self._panels if by_kernels else None
            output, h_n, c_n = run_layers(self, None, index, layout.batch_sizes, h0, c0, panels, rows=data)
            if panels is not None and data.is_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
                panels.frozen.keep(self)
        else:
            result, (h_n, c_n) = super().forward(PackedSequence(data, layout.batch_sizes), (h0, c0))
            output = result.data
        states = permute_rows(h_n, layout.unsorted_indices), permute_rows(c_n, layout.unsorted_indices)
        return output, states

    def _initial_states(self, like: Tensor, layout: PackedLayout, hx: States | None) -> States:
        """h_0 and c_0 in packed order, of the dtype and on the device of ``like``; checked, or zero when absent."""
        layers = self.num_layers * (2 if self.bidirectional else 1)
        h_shape = (layers, layout.rows, self.proj_size or self.hidden_size)
        c_shape = (layers, layout.rows, self.hidden_size)
        if hx is None:
            c0 = like.new_zeros(c_shape)
            return (c0 if h_shape == c_shape else like.new_zeros(h_shape)), c0
        if not isinstance(hx, tuple | list):
            raise TypeError(f"hx: expected a pair of tensors, (h_0, c_0), got {type(hx).__name__}")
        if len(hx) != 2:
            raise RuntimeError(f"hx: expected two hidden states, (h_0, c_0), got {len(hx)}")
        for i, (state, shape) in enumerate(zip(hx, (h_shape, c_shape), strict=True)):
            self.check_hidden_size(state, shape, f"Expected hidden[{i}] size {{}}, got {{}}")
            if state.device != like.device:
                raise RuntimeError(
                    "Input and hidden tensors are not at the same device: "
                    f"hidden[{i}] at {state.device}, input at {like.device}"
                )
            if state.dtype != like.dtype and not torch.is_autocast_enabled(like.device.type):
                raise RuntimeError(f"hidden[{i}]: expected the dtype of the input, {like.dtype}, got {state.dtype}")
        return permute_rows(hx[0], layout.sorted_indices), permute_rows(hx[1], layout.sorted_indices)

    @staticmethod
    def _check_states_batched(hx: Any) -> None:
        h_dim, c_dim = hx[0].dim(), hx[1].dim()
        if h_dim != 3 or c_dim != 3:
            raise RuntimeError(
                f"For batched 3-D input, hx and cx should also be 3-D but got ({h_dim}-D, {c_dim}-D) tensors"
            )

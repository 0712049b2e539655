"""FusedEmbeddingLSTM: nn.Embedding followed by nn.LSTM, with each token projected once instead of once a position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from textclf_fast.nn.distinct import embed_with_dropout
from textclf_fast.nn.extended import learned_states, run_layers_extended, unpack_form
from textclf_fast.nn.in_graphs import number_module, run_in_graph
from textclf_fast.nn.in_onnx import writes_onnx
from textclf_fast.nn.layout import (
    PackedLayout,
    packed_sequence_layout,
    padded_layout,
    to_packed,
    to_padded,
)
from textclf_fast.nn.lstm import FusedLSTM, States
from textclf_fast.nn.options import DEFAULTS, check_rate
from textclf_fast.nn.projected_table import DEFAULT_MAX_BYTES, ProjectedTable
from textclf_fast.nn.stack import (
    autocast_lowers,
    lower_states,
    lowered,
    stand_in,
)
from textclf_fast.nn.token_ids import check_ids_dtype, refuse_bad_ids
from textclf_fast.nn.tokens import kernels_can, kernels_pay, run_tokens
from textclf_fast.nn.trained import train_padded
from textclf_fast.optim.deferred_rows import synchronize_rows


class FusedEmbeddingLSTM(nn.Module):
    """``lstm(embedding(ids))``, without the (T, B, I) tensor of embeddings between them.

    The input half of a gate depends on the token alone. Training projects the distinct tokens of the batch and the LSTM
    kernel reads their rows by index; inference keeps the projection of the whole vocabulary while the weights stay as
    they are (:class:`textclf_fast.nn.projected_table.ProjectedTable`).

    The children are ``embedding`` (nn.Embedding) and ``lstm`` (FusedLSTM), so state_dicts are interchangeable with
    theirs.

    Args:
        num_embeddings: V, size of the vocabulary.
        embedding_dim: I, numbers per token.
        hidden_size: H.
        num_layers, bias, batch_first, dropout, bidirectional, proj_size: as in nn.LSTM.
        padding_idx: as in nn.Embedding: the token whose vector is zero and is not trained.
        sparse: as in nn.Embedding: the gradient of its weight is a sparse tensor of the batch's distinct tokens. With
            :class:`textclf_fast.optim.DeferredAdam` a training step then costs nothing for the tokens it does not see.
        max_table_bytes: the largest table that inference may keep; 0 keeps none.
        device, dtype: of the parameters.
        embedding_dropout: whole rows of the table, words, are zero with this probability, at all of their places in the
            batch; the others are divided by what is left. One mask a forward, in training only. Y. Gal and Z.
            Ghahramani, A Theoretically Grounded Application of Dropout in Recurrent Neural Networks, 2016.
        options: by keyword, those of FusedLSTM (:class:`textclf_fast.nn.options.LSTMOptions`). Where
            ``variational_dropout`` is on the first layer's input, each position is projected by itself, in training.
    """

    embedding: nn.Embedding
    lstm: FusedLSTM
    embedding_dropout: float = 0.0  # of the class: instances have their own where it is not this

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        padding_idx: int | None = None,
        max_table_bytes: int = DEFAULT_MAX_BYTES,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        sparse: bool = False,
        embedding_dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        self._set_embedding_dropout(embedding_dropout)
        self.embedding = nn.Embedding(
            num_embeddings, embedding_dim, padding_idx, sparse=sparse, device=device, dtype=dtype
        )
        self.lstm = FusedLSTM(
            embedding_dim,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            **options,
        )
        self.projected_table = ProjectedTable(max_table_bytes)
        self._number = number_module(self)

    @classmethod
    def from_modules(
        cls,
        embedding: nn.Embedding,
        lstm: nn.LSTM,
        max_table_bytes: int = DEFAULT_MAX_BYTES,
        *,
        embedding_dropout: float = 0.0,
        **options: Any,
    ) -> FusedEmbeddingLSTM:
        """The two modules as one, sharing their parameters: training either trains both.

        The options are the constructor's; those of a FusedLSTM stay.

        Raises:
            ValueError: the embedding's width is not the LSTM's input size.
        """
        if embedding.embedding_dim != lstm.input_size:
            raise ValueError(
                f"lstm: input_size is {lstm.input_size}, expected embedding's embedding_dim, {embedding.embedding_dim}"
            )
        fused = cls.__new__(cls)
        nn.Module.__init__(fused)
        fused.embedding = embedding
        fused._set_embedding_dropout(embedding_dropout)
        fused.lstm = FusedLSTM.from_lstm(lstm, **options)
        fused.projected_table = ProjectedTable(max_table_bytes)
        fused._number = number_module(fused)
        return fused.train(lstm.training)

    def _set_embedding_dropout(self, rate: float) -> None:
        check_rate("embedding_dropout", rate)
        if rate:
            self.embedding_dropout = rate

    def extra_repr(self) -> str:
        """What the children do not show."""
        return f"embedding_dropout={self.embedding_dropout}" if self.embedding_dropout else ""

    def prepare_inference(self, weights: Literal["int8"] | None = None) -> None:
        """Makes the table of projected tokens now, instead of once enough tokens have been projected without it.

        With ``weights="int8"`` W_hh is kept in int8, too, a scale for each of its 4H rows, and h is rounded to
        multiples of 1 / 127 in every step; all else stays float32. It is for one text at a time, whose steps wait for
        W_hh. On random weights, uniform in +-1 / sqrt(H), h was off by 0.0004 (root mean square), 0.003 at most, over
        256 steps of 8 rows (H = 128 and 512; the tokens' gates normal with a standard deviation of 0.5).

        It is used under ``torch.no_grad`` or ``torch.inference_mode`` by calls without ``hx``, and is dropped with the
        table: when a weight changes or a call may lead to a backward. Call this again then. Copies do not have it.

        Args:
            weights: "int8", or None for the weights as they are, which also ends the use of int8.

        Raises:
            ValueError: another value; or int8 for something else than one layer on the CPU in float32, without
                proj_size, whose table is kept.
        """
        if weights not in (None, "int8"):
            raise ValueError(f"weights: expected None or 'int8', got {weights!r}")
        self.lstm._update_flat_weights()
        if weights == "int8":
            self._check_int8_applies()
        self.projected_table.frozen.clear()
        layer = None
        with torch.no_grad():  # on a GPU it is another question in training
            if kernels_can(self.embedding, self.lstm):
                table = self.projected_table.get(self.embedding, self.lstm, self.embedding.num_embeddings)
                if table is not None and self.lstm.num_layers == 1:
                    layer = self.projected_table.frozen.keep(self.embedding, self.lstm, table, weights == "int8")
        if weights == "int8" and layer is None:
            raise ValueError(
                "weights: 'int8' needs the table of projected tokens, which is not kept here: it is larger than "
                "max_table_bytes, the embedding has max_norm, weights are parametrized, managed by FSDP or were made "
                "in inference mode, or autocast is on"
            )

    def _check_int8_applies(self) -> None:
        weight = self.lstm.weight_hh_l0
        for name, value, expected in (
            ("num_layers", self.lstm.num_layers, 1),
            ("proj_size", self.lstm.proj_size, 0),
            ("dtype", weight.dtype, torch.float32),
            ("device", weight.device.type, "cpu"),
        ):
            if value != expected:
                raise ValueError(f"weights: 'int8' is for {name} = {expected}, and this module's is {value}")

    def forward(
        self,
        ids: Tensor | PackedSequence,
        lengths: Tensor | Sequence[int] | None = None,
        hx: States | None = None,
        need_output: bool = True,
        return_cell_states: bool = False,
    ) -> tuple[Any, ...]:
        """Embeds the tokens and runs the layers.

        Args:
            ids: (T, B) integers; (B, T) where batch_first; (T,) for one row; or a PackedSequence of (N,) ids.
            lengths: as in :meth:`FusedLSTM.forward`.
            hx: as in :meth:`FusedLSTM.forward`.
            need_output: False where the final states are enough, as for a classifier: inference then writes no output.
            return_cell_states: as in :meth:`FusedLSTM.forward`.

        Returns:
            output in the form of ids, (T, B, D * H), None where it is not needed; (h_n, c_n), each (L * D, B, H); and
            the last layer's cell states, in the form of output, with return_cell_states. Where proj_size is P, output
            and h_n have P for H.

        Raises:
            IndexError: an id out of range; names the id, where it is, and the size of the vocabulary. Our
                kernels on a GPU do not wait for a look at ids: a row is NaN from such a one on.
            TypeError: ids or lengths that are not integers.
            ValueError: a wrong number of dimensions or of lengths.
            RuntimeError: sizes that do not fit, a length out of range (see :meth:`FusedLSTM.forward` for those on a
                GPU), a PackedSequence that contradicts itself.
        """
        embedding, lstm = self.embedding, self.lstm  # once: a module looks its children up slowly
        extended = return_cell_states or lstm.options is not DEFAULTS or self.embedding_dropout
        if extended:
            hx = learned_states(lstm, ids, 1) if hx is None else hx
            extended = (
                return_cell_states
                or lstm.options.change_layers(lstm.training)
                or (self.training and self.embedding_dropout)
            )
        if hx is None and not extended and isinstance(ids, Tensor):
            if torch.compiler.is_compiling():
                result = run_in_graph(embedding, lstm, ids, lengths, need_output, self._number)
            elif torch.is_grad_enabled():
                result = train_padded(embedding, lstm, ids, lengths, need_output)
                if result is not None:
                    self.projected_table.clear()
            else:
                result = self.projected_table.frozen.run(embedding, lstm, ids, lengths, need_output)
            if result is not None:
                output, h_n, c_n = result
                return output if need_output else None, (h_n, c_n)
        lstm._update_flat_weights()
        if (not isinstance(ids, Tensor) or ids.numel()) and autocast_lowers(lstm, embedding.weight):
            children = {**self._modules, "lstm": lowered(lstm)}
            with torch.autocast("cpu", enabled=False):
                module = stand_in(self, _modules=children)
                return module._forward(ids, lengths, lower_states(hx), need_output, bool(extended), return_cell_states)
        return self._forward(ids, lengths, hx, need_output, bool(extended), return_cell_states)

    def _forward(
        self,
        ids: Tensor | PackedSequence,
        lengths: Tensor | Sequence[int] | None,
        hx: States | None,
        need_output: bool,
        extended: bool,
        return_cell_states: bool,
    ) -> tuple[Any, ...]:
        """forward with the LSTM's ``_flat_weights`` as they are."""
        embedding, lstm = self.embedding, self.lstm
        if extended:
            return self._forward_extended(ids, lengths, hx, need_output, return_cell_states)
        if isinstance(ids, PackedSequence):
            if lengths is not None:
                raise ValueError("lengths: expected None beside a PackedSequence, which has its own")
            return self._forward_packed(ids, hx, need_output)
        if ids.dim() == 1:
            return self._forward_one_row(ids, lengths, hx, need_output)
        if ids.dim() != 2:
            raise ValueError(f"ids: expected shape (T, B), or (T,) for one row, got {tuple(ids.shape)}")
        check_ids_dtype(ids)
        batch_first = lstm.batch_first
        rows, steps = ids.shape if batch_first else (ids.size(1), ids.size(0))
        if ids.numel() == 0:
            return lstm(embedding(ids), hx, lengths=lengths)
        if lengths is not None and torch.onnx.is_in_onnx_export():
            if not (need_output or writes_onnx(lstm)):
                raise RuntimeError(
                    "torch.onnx.export(dynamo=False) cannot write lengths where the output is left out: use "
                    "dynamo=True, or textclf_fast.export_onnx"
                )
            output, states = lstm(embedding(ids), hx, lengths=lengths)
            return output if need_output else None, states
        by_kernels = kernels_pay(self.embedding, lstm, ids, rows, steps)
        layout = padded_layout(lengths, steps, rows, batch_first, ids.device if by_kernels and ids.is_cuda else None)
        try:
            if lengths is None and not by_kernels:
                # As it is: the transforms of torch.func have no rule for PyTorch's LSTM on packed batches.
                output, states = lstm(embedding(ids), hx)
                return output if need_output else None, states
            output, states = self._run(to_packed(ids, layout, batch_first), layout, hx, need_output, by_kernels)
        except (IndexError, RuntimeError):
            refuse_bad_ids(
                self.embedding.num_embeddings, to_packed(ids, layout, batch_first), layout, steps, batch_first
            )
            raise
        return to_padded(output, layout, steps, rows, batch_first) if need_output else None, states

    def _forward_extended(
        self,
        ids: Tensor | PackedSequence,
        lengths: Tensor | Sequence[int] | None,
        hx: States | None,
        need_output: bool,
        return_cell_states: bool,
    ) -> tuple[Any, ...]:
        """Under options that change layers, or with cell states for the caller."""
        lstm = self.lstm
        data, form, hx = unpack_form(ids, lengths, hx, lstm.batch_first, row_dim=1)
        check_ids_dtype(data)
        if torch.is_grad_enabled():
            self.projected_table.clear()
        try:
            rows, index = embed_with_dropout(self.embedding, data, self.embedding_dropout if self.training else 0.0)
            output, h_n, c_n, cells = run_layers_extended(lstm, rows, index, form.layout, hx, return_cell_states)
        except (IndexError, RuntimeError):
            refuse_bad_ids(self.embedding.num_embeddings, data, form.layout, form.steps, lstm.batch_first)
            raise
        results = (
            form.restore(output) if need_output else None,
            (form.restore_state(h_n), form.restore_state(c_n)),
            form.restore(cells) if return_cell_states else None,
        )
        return results if return_cell_states else results[:2]

    def _forward_packed(
        self, packed: PackedSequence, hx: States | None, need_output: bool
    ) -> tuple[PackedSequence | None, States]:
        if packed.data.dim() != 1:
            raise ValueError(
                f"ids: expected a PackedSequence of shape (N,), got data of shape {tuple(packed.data.shape)}"
            )
        check_ids_dtype(packed.data)
        layout = packed_sequence_layout(packed)
        try:
            steps = layout.batch_sizes.numel()
            by_kernels = kernels_pay(self.embedding, self.lstm, packed.data, layout.rows, steps)
            output, states = self._run(packed.data, layout, hx, need_output, by_kernels)
        except (IndexError, RuntimeError):
            refuse_bad_ids(self.embedding.num_embeddings, packed.data, layout, 0, self.lstm.batch_first)
            raise
        if not need_output:
            return None, states
        return PackedSequence(output, layout.batch_sizes, layout.sorted_indices, layout.unsorted_indices), states

    def _forward_one_row(
        self, ids: Tensor, lengths: Tensor | Sequence[int] | None, hx: States | None, need_output: bool
    ) -> tuple[Tensor | None, States]:
        if lengths is not None:
            raise ValueError("lengths: expected None beside ids of shape (T,), which are one whole row")
        if hx is not None and (hx[0].dim() != 2 or hx[1].dim() != 2):
            raise RuntimeError(
                f"hx: expected 2-D states beside ids of shape (T,), got {hx[0].dim()}-D and {hx[1].dim()}-D"
            )
        batch_dim = 0 if self.lstm.batch_first else 1
        states = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        output, (h_n, c_n) = self.forward(ids.unsqueeze(batch_dim), None, states, need_output=need_output)
        final = h_n.squeeze(1), c_n.squeeze(1)
        return None if output is None else output.squeeze(batch_dim), final

    def _run(
        self, ids: Tensor, layout: PackedLayout, hx: States | None, need_output: bool, by_kernels: bool
    ) -> tuple[Tensor, States]:
        """(N,) ids in packed order and states in the caller's -> (N, D * P) and states in the caller's order."""
        embedding, lstm = self.embedding, self.lstm  # once: a module looks its children up slowly
        if by_kernels:
            return run_tokens(embedding, lstm, self.projected_table, ids, layout, hx, need_output)
        return lstm._run(embedding(ids), layout, hx)

    def _apply(self, fn: Any, recurse: bool = True) -> FusedEmbeddingLSTM:
        self.projected_table.clear()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles hold weights that are up to date."""
        synchronize_rows(self.embedding)
        state = self.__dict__.copy()
        state.pop("_number", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._number = number_module(self)

"""Inference of a FusedEmbeddingLSTM in a compiled graph: one op, so that what is kept between calls serves there too.

A graph holds tensors and numbers. The table of projected tokens cannot be a constant in it, for the weights may change,
and whether it is still right is for Python to find out. So the op is told the module by a number and runs it as an
eager call does. Its result depends on its arguments alone: weights that are not the module's own, as in
torch.func.functional_call, are put in their place for the call.

Exported programs, which run without this package, are made of the ops in csrc/ instead.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from textclf_fast import ops
from textclf_fast.nn.frozen import parameters

if TYPE_CHECKING:
    from textclf_fast.nn.embedding_lstm import FusedEmbeddingLSTM
    from textclf_fast.nn.lstm import FusedLSTM

_modules: weakref.WeakValueDictionary[int, FusedEmbeddingLSTM] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def number_module(module: FusedEmbeddingLSTM) -> int:
    """A number by which graphs know the module, for as long as it lives."""
    number = next(_numbers)
    _modules[number] = module
    return number


def run_in_graph(
    embedding: nn.Embedding,
    lstm: FusedLSTM,
    ids: Tensor,
    lengths: Tensor | Sequence[int] | None,
    need_output: bool,
    number: int,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """What :meth:`FrozenRun.run` returns, while a graph is traced; ``number``: of the module that these make up."""
    if torch.is_grad_enabled() or torch.compiler.is_exporting() or not ops.transforms_are_off():
        return None
    if not ids.is_cpu or ids.dim() != 2 or ids.numel() == 0 or embedding.max_norm is not None:
        return None
    if not (lengths is None or (isinstance(lengths, Tensor) and lengths.is_cpu)):
        return None
    weights = parameters(embedding, lstm)
    if weights is None or not all(weight.is_cpu for weight in weights):
        return None
    return torch.ops.textclf_fast.embedding_lstm_module(ids, lengths, weights, need_output, number)


# `weights`: the embedding's and those of the LSTM, in the order of its names
torch.library.define(
    "textclf_fast::embedding_lstm_module",
    "(Tensor ids, Tensor? lengths, Tensor[] weights, bool need_output, int module) -> (Tensor, Tensor, Tensor)",
)


@torch.library.impl("textclf_fast::embedding_lstm_module", "CPU")
def _(
    ids: Tensor, lengths: Tensor | None, weights: list[Tensor], need_output: bool, module: int
) -> tuple[Tensor, Tensor, Tensor]:
    owner = _modules[module]
    embedding, lstm = owner.embedding, owner.lstm  # once: a module looks its children up slowly
    result = owner.projected_table.frozen.run(embedding, lstm, ids, lengths, need_output, weights)
    if result is not None:
        return result
    own = parameters(embedding, lstm)
    output: Any
    with torch.no_grad():
        if own is not None and all(map(_same_memory, own, weights)):
            output, states = owner.forward(ids, lengths, None, need_output)
        else:
            names = ["embedding.weight", *(f"lstm.{name}" for name in lstm._flat_weights_names)]
            given = dict(zip(names, weights, strict=True))
            try:
                output, states = torch.func.functional_call(owner, given, (ids, lengths, None, need_output))
            finally:
                lstm._update_flat_weights()  # its list would keep the given ones
    if output is None:
        output = weights[1].new_empty(0)
    # As the fake kernel promises: a batch-first output may be a transposed view.
    return output.contiguous(), states[0].contiguous(), states[1].contiguous()


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride())


@torch.library.register_fake("textclf_fast::embedding_lstm_module")
def _(
    ids: Tensor, lengths: Tensor | None, weights: list[Tensor], need_output: bool, module: int
) -> tuple[Tensor, Tensor, Tensor]:
    lstm, like = _modules[module].lstm, weights[1]
    directions, hidden = 2 if lstm.bidirectional else 1, lstm.hidden_size
    width = lstm.proj_size or hidden
    layers, rows = lstm.num_layers * directions, ids.size(0 if lstm.batch_first else 1)
    output = like.new_empty((*ids.shape, directions * width) if need_output else 0)
    return output, like.new_empty(layers, rows, width), like.new_empty(layers, rows, hidden)

"""An embedding and an LSTM that stay two modules of someone else's model, and run as one where they can.

The embedding gives the tensor that it always gave, and remembers which tokens it is made of. An LSTM that is given
this very tensor runs from the tokens instead. Whatever else is done with the tensor is done with the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from textclf_fast import ops
from textclf_fast.nn.derived import Derived, weights_stay
from textclf_fast.nn.embedding_lstm import FusedEmbeddingLSTM
from textclf_fast.nn.lstm import FusedLSTM, States
from textclf_fast.nn.on_cuda import cuda_kernels_pay
from textclf_fast.nn.projected_table import DEFAULT_MAX_BYTES, ProjectedTable
from textclf_fast.nn.stack import kernels_apply
from textclf_fast.optim.deferred_rows import keepers_of


class _Origin(NamedTuple):
    """What a tensor of embedded tokens is made of.

    Attributes:
        embedding: the module that made it.
        ids: (T, B) or (B, T) int64, a copy; kept while neither the tensor nor the embedding's weight changes.
    """

    embedding: PairedEmbedding
    ids: Derived[Tensor]


# An attribute of the tensor would be copied and pickled with it.
_origins: Any = WeakTensorKeyDictionary()


class PairedEmbedding(nn.Embedding):
    """An nn.Embedding, made one of these in place, that remembers what its output is made of."""

    # Whether it was promised that nobody takes the gradient of its output: it may then be left out of training, too.
    _output_is_private = False

    def forward(self, input: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not self._is_plain(input):
            return super().forward(input)
        with ExitStack() as modes:
            if torch.is_inference_mode_enabled():
                # Changes of a tensor that is made in inference mode go unnoticed.
                modes.enter_context(torch.inference_mode(False))
                modes.enter_context(torch.no_grad())
            embedded = super().forward(input)
            if self._output_is_private or not embedded.requires_grad:
                origin = _Origin(self, Derived())
                if origin.ids.get([self.weight, embedded], lambda _: input.to(torch.int64, copy=True)) is not None:
                    _origins[embedded] = origin
        return embedded

    def _is_plain(self, ids: Tensor) -> bool:
        """Whether a lookup does nothing but look up, here where the kernels are, a padded batch."""
        return (
            isinstance(ids, Tensor)
            and ids.dim() == 2
            and (ids.is_cpu or (ids.is_cuda and not torch.is_grad_enabled()))
            and ids.numel() > 0
            and self._parameters.get("weight") is not None
            and weights_stay(self)
            and not (self._forward_hooks or self._backward_hooks or self._backward_pre_hooks)
            and len(list(keepers_of(self))) == len(self._forward_pre_hooks)
            and ops.transforms_are_off()
        )

    def _get_name(self) -> str:
        return "Embedding"


class PairedLSTM(FusedLSTM):
    """An nn.LSTM, made one of these in place: a FusedLSTM that knows the output of a :class:`PairedEmbedding`."""

    def forward(
        self,
        input: Any,
        hx: States | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        return_cell_states: bool = False,
    ) -> tuple[Any, ...]:
        """As :meth:`FusedLSTM.forward`."""
        if _origins and isinstance(input, Tensor) and not torch.compiler.is_compiling():
            pair, ids = self._pair_for(input)
            if pair is not None:
                return pair.forward(ids, lengths, hx, return_cell_states=return_cell_states)  # type: ignore[arg-type]
        if torch.is_grad_enabled():
            self._forget_pairs()  # weights may now change in ways that nobody notices
        return super().forward(input, hx, lengths, return_cell_states=return_cell_states)  # type: ignore[call-overload]

    def _pair_for(self, input: Tensor) -> tuple[FusedEmbeddingLSTM, Tensor] | tuple[None, None]:
        """What computes this call from token ids, and the ids; nothing where the tensor has to be taken as it is."""
        embedding, ids = _tokens_behind(input)
        if embedding is None or ids is None or embedding.embedding_dim != self.input_size:
            return None, None
        self._update_flat_weights()
        if not kernels_apply(self, embedding.weight) or not _gradient_is_the_same(input, embedding):
            return None, None
        if ids.is_cuda and not cuda_kernels_pay(self, *(ids.shape if self.batch_first else reversed(ids.shape))):
            return None, None
        pairs = self.__dict__.setdefault("_kept_pairs", _Pairs())
        return pairs.of(embedding, self), ids

    def _forget_pairs(self) -> None:
        self.__dict__.pop("_kept_pairs", None)

    def _apply(self, fn: Any, recurse: bool = True) -> PairedLSTM:
        self._forget_pairs()
        super()._apply(fn, recurse)
        return self

    def _get_name(self) -> str:
        return "FusedLSTM"


def _tokens_behind(input: Tensor) -> tuple[PairedEmbedding, Tensor] | tuple[None, None]:
    """The embedding and the ids (T, B) or (B, T) that this tensor is made of, if it is known to be.

    It is an embedding's output as that was, or has its first two dimensions swapped.
    """
    whole = _whole(input)
    origin = _origins.get(whole)
    if origin is None or input.dim() != 3 or input.dtype != whole.dtype:
        return None, None
    ids = origin.ids.peek([origin.embedding.weight, whole])
    if ids is None:
        return None, None
    if _lie_alike(input, whole):
        return origin.embedding, ids
    return (origin.embedding, ids.T) if _lie_alike(input, whole.transpose(0, 1)) else (None, None)


def _whole(t: Tensor) -> Tensor:
    """What this is a view of, or itself."""
    return t._base if t._is_view() else t  # type: ignore[return-value]


def _lie_alike(a: Tensor, b: Tensor) -> bool:
    """Whether two views of a whole are the same: what has its size has no other place in it."""
    return a.shape == b.shape and a.stride() == b.stride()


def _gradient_is_the_same(input: Tensor, embedding: PairedEmbedding) -> bool:
    """Whether every gradient is the same if the embedded tensor, whose tokens are known, is left out of the graph."""
    if not torch.is_grad_enabled():
        return True
    if input.requires_grad != embedding.weight.requires_grad:
        return False  # made without a graph, or cut off from it
    if not input.requires_grad:
        return True
    whole = _whole(input)
    step = input.grad_fn
    if step is not whole.grad_fn:
        if type(step).__name__ not in ("TransposeBackward0", "PermuteBackward0"):
            return False  # something that may look at gradients, such as a hook of a module
        step = step.next_functions[0][0]  # type: ignore[union-attr]
    return step is whole.grad_fn and not any(t._backward_hooks or t.retains_grad for t in (input, whole))


class _Pairs:
    """The FusedEmbeddingLSTMs that an LSTM is one half of, one for each embedding whose output it was given."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[PairedEmbedding, FusedEmbeddingLSTM]] = {}

    def of(self, embedding: PairedEmbedding, lstm: PairedLSTM) -> FusedEmbeddingLSTM:
        found = self._of.get(id(embedding))
        if found is None:
            found = self._of[id(embedding)] = (embedding, _join(embedding, lstm))
        return found[1]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles do not take them along."""
        return _Pairs, ()


def _join(embedding: PairedEmbedding, lstm: PairedLSTM) -> FusedEmbeddingLSTM:
    # The same module, seen as the nn.Embedding that it was: FusedEmbeddingLSTM has short ways for that very class.
    plain = nn.Embedding.__new__(nn.Embedding)
    object.__setattr__(plain, "__dict__", embedding.__dict__)
    pair = FusedEmbeddingLSTM.__new__(FusedEmbeddingLSTM)
    nn.Module.__init__(pair)
    pair.embedding, pair.lstm = plain, lstm
    pair.projected_table = ProjectedTable(DEFAULT_MAX_BYTES)
    return pair

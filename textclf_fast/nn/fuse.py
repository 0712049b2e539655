"""fuse and unfuse: someone else's model on our kernels, in place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from textclf_fast.nn.embedding_lstm import FusedEmbeddingLSTM
from textclf_fast.nn.lstm import FusedLSTM
from textclf_fast.nn.paired import PairedEmbedding, PairedLSTM
from textclf_fast.nn.stack import kernels_apply


@dataclass(frozen=True)
class FuseReport:
    """What :func:`fuse` made of a model; ``print`` shows it.

    Modules go by their names in the model; one that is used at several places by all of them, joined by " = ".

    Attributes:
        lstms: the LSTMs that are fused, each with a remark, mostly empty.
        pairs: (embedding, lstm) that run as one in inference, in every call in which the LSTM is given what the
            embedding returned; by their widths it may be, which of them it will be nobody knows.
        trained_pairs: those of them that do in training, too.
        left: the modules that one might have expected among these, each with the reason why it is not.
    """

    lstms: dict[str, str]
    pairs: tuple[tuple[str, str], ...]
    trained_pairs: tuple[tuple[str, str], ...]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"fused  {name}{remark and f': {remark}'}" for name, remark in self.lstms.items()]
        for pair in self.pairs:
            when = "inference and training" if pair in self.trained_pairs else "inference"
            lines.append(f"pair   {pair[0]} -> {pair[1]}: in {when}, where the one's output is the other's input")
        lines += [f"left   {name}: {reason}" for name, reason in self.left.items()]
        return "\n".join(lines or ["no LSTM"])


def fuse(model: nn.Module, pairs: Iterable[tuple[str, str]] = ()) -> FuseReport:
    """Has every nn.LSTM of a model, and every nn.Embedding whose output one is given, run on our kernels.

    The modules stay the objects that they are and change their class: parameters, buffers, hooks, names, modes,
    state_dicts, optimizers and whoever else holds a module or a parameter are not concerned, and a module that is
    used at several places is fused at all of them. (A pickle of the whole model needs this package to be read.)
    :func:`unfuse` changes it back.

    An embedding and an LSTM run as one, as :class:`FusedEmbeddingLSTM` does, in every call in which the LSTM is given
    what the embedding returned: that very tensor, unchanged, its first two dimensions swapped or not. Dropout in eval
    mode hands it on; pack_padded_sequence, dropout in training and arithmetic make another tensor, on which the
    LSTM runs as a FusedLSTM. What the embedding returns is an ordinary tensor, for whatever else is done with it; a
    change of it is noticed as those of weights are (see :class:`textclf_fast.nn.derived.Derived`): not one through
    ``tensor.data`` or NumPy.

    In training that would take the tensor between the two out of the graph: its gradient could not be asked for.
    Nobody can tell from outside whether a model does; so it is done for frozen embeddings alone and for ``pairs``.

    Args:
        model: changed in place.
        pairs: the names of embeddings and of the LSTMs that they feed, of which you know that nobody takes the gradient
            of the tensor between them. (Hooks on it, on the embedding or by ``retain_grad`` are noticed.)

    Returns:
        What was changed, what was left as it is, and why: the model being changed in place, that is the news. Calling
        fuse again changes nothing and reports the same.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: a pair that is none; names it. Nothing is changed then.
    """
    named = _named_modules(model)
    reasons = {name: _why_not_fused(module) for name, module in named.items()}
    lstms = {name: m for name, m in named.items() if isinstance(m, nn.LSTM) and reasons[name] is None}
    widths = {lstm.input_size for lstm in lstms.values()}
    inside_ours = {m.embedding for m in named.values() if isinstance(m, FusedEmbeddingLSTM)}
    embeddings = {}
    for name, module in named.items():
        if isinstance(module, nn.Embedding) and module.embedding_dim in widths and module not in inside_ours:
            reasons[name] = _why_not_paired(module)
            if reasons[name] is None:
                embeddings[name] = module
    left = {name: reason for name, reason in reasons.items() if reason is not None}
    private = [_find_pair(model, pair, embeddings, lstms) for pair in pairs]

    for lstm in lstms.values():
        if type(lstm) is nn.LSTM:
            lstm.__class__ = PairedLSTM
    for embedding in embeddings.values():
        if type(embedding) is nn.Embedding:
            embedding.__class__ = PairedEmbedding
    for embedding in private:
        embedding._output_is_private = True  # type: ignore[assignment]
    found = tuple((name, of) for of in lstms for name in embeddings if _fit(embeddings[name], lstms[of]))
    trained = tuple(pair for pair in found if embeddings[pair[0]]._output_is_private)
    return FuseReport({name: _remark(lstm) for name, lstm in lstms.items()}, found, trained, left)


def unfuse(model: nn.Module) -> None:
    """Undoes :func:`fuse`: every module is of its own class again, and nothing of ours is left on it.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: a module that has been parametrized or wrapped since, which has to be undone first; names it.
            Nothing is changed then.
    """
    ours = {n: m for n, m in _named_modules(model).items() if isinstance(m, PairedLSTM | PairedEmbedding)}
    for name, module in ours.items():
        if type(module) not in (PairedLSTM, PairedEmbedding):
            raise ValueError(
                f"model: {name} is a {type(module).__name__} now; undo what made it one (parametrizations, FSDP) first"
            )
    for module in ours.values():
        for attribute in ("_kept_panels", "_kept_pairs", "_output_is_private"):
            module.__dict__.pop(attribute, None)
        module.__class__ = nn.LSTM if isinstance(module, PairedLSTM) else nn.Embedding  # type: ignore[assignment]


def _named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module once, by all its names."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name or "(the model itself)")
    return {" = ".join(of): module for module, of in names.items()}


def _why_not_fused(module: nn.Module) -> str | None:
    """Why something that has to do with LSTMs is left as it is; None for others, and for those that are fused."""
    kind = type(module)
    if isinstance(module, PairedLSTM):
        return None
    if kind is nn.LSTM:
        return _why_forward_is_not_ours(module)
    if isinstance(module, FusedLSTM):
        return "is a FusedLSTM already"
    if isinstance(module, nn.LSTM):
        return _why_no_class_of_ours(module)
    if kind is nn.LSTMCell or "LSTM" in (kind.__name__, getattr(module, "original_name", None)):
        return f"is a {_full_name(kind)}, not an nn.LSTM"
    return None


def _why_not_paired(embedding: nn.Embedding) -> str | None:
    if embedding.max_norm is not None:
        return "has max_norm, with which a lookup changes the vectors"
    if isinstance(embedding, PairedEmbedding):
        return None
    if type(embedding) is nn.Embedding:
        return _why_forward_is_not_ours(embedding)
    return _why_no_class_of_ours(embedding)


def _why_forward_is_not_ours(module: nn.Module) -> str | None:
    return "has a forward of its own, set on the module itself" if "forward" in module.__dict__ else None


def _why_no_class_of_ours(module: nn.Module) -> str:
    if parametrize.is_parametrized(module):
        return "is parametrized; fuse first, then parametrize"
    return f"is a {_full_name(type(module))}, which may do something of its own"


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _fit(embedding: nn.Embedding, lstm: nn.LSTM) -> bool:
    return embedding.embedding_dim == lstm.input_size


def _remark(lstm: nn.LSTM) -> str:
    if kernels_apply(lstm):
        return ""
    weight = next(lstm.parameters())
    with torch.no_grad():
        when = " in training" if kernels_apply(lstm) else ""
    return f"takes PyTorch's own path{when} for {str(weight.dtype).removeprefix('torch.')} on {weight.device}"


def _find_pair(
    model: nn.Module, pair: tuple[str, str], embeddings: dict[str, nn.Embedding], lstms: dict[str, nn.LSTM]
) -> nn.Embedding:
    """The embedding of a pair that was named."""
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise ValueError(f"pairs: expected pairs of names, (embedding, lstm), got {pair!r}")
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, among, what in ((pair[0], embeddings, "nn.Embedding"), (pair[1], lstms, "nn.LSTM")):
        module = modules.get(name)
        if module is None or module not in among.values():
            found = "there is none" if module is None else f"it is a {_full_name(type(module))}"
            raise ValueError(f"pairs: expected an {what} that can be fused at {name!r}, but {found}")
    embedding, lstm = modules[pair[0]], modules[pair[1]]
    if not _fit(embedding, lstm):
        raise ValueError(
            f"pairs: {pair[0]} has embedding_dim {embedding.embedding_dim}, "
            f"expected the input_size of {pair[1]}, {lstm.input_size}"
        )
    return embedding

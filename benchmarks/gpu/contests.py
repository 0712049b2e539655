"""The calls that are timed in a cell on a GPU: ours, nn.LSTM's and FlashRNN's, on the same weights and input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from benchmarks.cells import Cell, draw_ids, draw_lengths
from benchmarks.gpu.cells import GpuCell
from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, TextClassifier
from textclf_fast.models import PlainTextClassifier
from textclf_fast.nn import on_cuda

Call = Callable[[], Tensor]  # h_n in inference; in training W_hh's gradient


class Unmeasurable(Exception):
    """Why a cell cannot be measured here, in one line."""


@dataclass
class Contest:
    """Who is timed in a cell.

    Attributes:
        calls: by name, "ours" first.
        reference: the name of the call whose result ours has to have; None where nobody computes the same.
        positions: N, the sum of the lengths.
    """

    calls: dict[str, Call]
    reference: str | None
    positions: int


def make_contest(cell: GpuCell, device: torch.device) -> Contest:
    """Builds the modules and the input of a cell.

    Raises:
        Unmeasurable: a peer of the cell is not here.
    """
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not cell.strict
    if cell.section == "flashrnn":
        return _beside_flashrnn(cell, device)
    if cell.section == "classifier":
        return _classifiers(cell.shape, device)
    if cell.shape.form == "tokens":
        return _on_tokens(cell.shape, cell.mode == "training", device)
    return _on_floats(cell, device)


def _on_tokens(shape: Cell, training: bool, device: torch.device) -> Contest:
    ids, lengths = _texts(shape, device)
    embedding, lstm = nn.Embedding(shape.vocabulary, shape.embedding), _lstm(nn.LSTM, shape)
    fused = FusedEmbeddingLSTM(shape.vocabulary, shape.embedding, shape.hidden, **_options(shape))
    fused.embedding.load_state_dict(embedding.state_dict())
    fused.lstm.load_state_dict(lstm.state_dict())
    plain = nn.ModuleList([embedding, lstm])
    for module in (fused, plain):
        module.to(device, getattr(torch, shape.dtype))
    if not training:
        fused.prepare_inference()
    # Ours is told the lengths on the device; packing wants them on the CPU, and is given them there.
    told = None if shape.fill == 1 else lengths.to(device)
    calls = {"ours": _call(lambda: fused(ids, told), fused, training)}
    calls["padded"] = _call(lambda: lstm(embedding(ids)), plain, training)
    if told is None:
        return Contest(calls, "padded", int(lengths.sum()))
    calls["packed"] = _call(
        lambda: lstm(pack_padded_sequence(embedding(ids), lengths, enforce_sorted=False)), plain, training
    )
    return Contest(calls, "packed", int(lengths.sum()))


def _on_floats(cell: GpuCell, device: torch.device) -> Contest:
    """In "float", ours is FusedLSTM as it is, which may leave the layer to cuDNN; elsewhere it is our kernels."""
    shape, training = cell.shape, cell.mode == "training"
    lstm, fused, x = _layers_and_input(shape, device)
    lengths = draw_lengths(shape, np.random.default_rng(0))
    given: Tensor | PackedSequence = x
    name = "padded"
    if shape.form == "packed":
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        given, name = PackedSequence(packed.data.requires_grad_(training), *packed[1:]), "packed"
    else:
        x.requires_grad_(training)
    kernels = _call(lambda: _by_kernels(fused, given), fused, training, given)
    calls = {"ours": kernels, name: _call(lambda: lstm(given), lstm, training, given)}
    if cell.section == "float":
        calls |= {"ours": _call(lambda: fused(given), fused, training, given), "our kernels": kernels}
    return Contest(calls, name, int(lengths.sum()))


def _by_kernels(lstm: nn.Module, given: Tensor | PackedSequence) -> Any:
    """The module's result, dense batches of floats not left to cuDNN where our kernels can compute them."""
    with mock.patch.object(on_cuda, "faster_than_cudnn", return_value=True):
        return lstm(given)


def _classifiers(shape: Cell, device: torch.device) -> Contest:
    """Whole training steps: forward, cross-entropy, backward, PyTorch's fused Adam."""
    ids, lengths = _texts(shape, device)
    labels = torch.randint(2, (shape.rows,), device=device)
    sizes = (shape.vocabulary, shape.embedding, shape.hidden, 2)
    models: dict[str, tuple[nn.Module, Tensor]] = {
        "ours": (TextClassifier(*sizes, padding_idx=None), lengths.to(device)),
        "padded": (PlainTextClassifier(*sizes, layout="padded"), lengths),
        "packed": (PlainTextClassifier(*sizes, layout="packed"), lengths),
    }

    def step_of(model: nn.Module, given: Tensor) -> Call:
        model.load_state_dict(models["packed"][0].state_dict())
        model.to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

        def step() -> Tensor:
            optimizer.zero_grad()
            functional.cross_entropy(model(ids, given), labels).backward()
            optimizer.step()
            return _gradient(model)

        return step

    calls = {name: step_of(model, given) for name, (model, given) in models.items()}
    return Contest(calls, "packed", int(lengths.sum()))


def _beside_flashrnn(cell: GpuCell, device: torch.device) -> Contest:
    """FlashRNN's product of the input is PyTorch's GEMM, as it leaves that to its user; its weights are its own."""
    try:
        from flashrnn import flashrnn
    except ImportError as error:
        raise Unmeasurable(f"FlashRNN cannot be imported: {error}") from None
    shape, training = cell.shape, cell.mode == "training"
    _, fused, x = _layers_and_input(shape, device)
    x.requires_grad_(training)
    rows, hidden, dtype = shape.rows, shape.hidden, getattr(torch, shape.dtype)

    def parameter(*sizes: int) -> Tensor:
        values = torch.randn(*sizes, device=device, dtype=dtype) / hidden**0.5
        return values.requires_grad_(training)

    w_ih, bias = parameter(4 * hidden, shape.embedding), parameter(4 * hidden)
    recurrent, zero = parameter(4, 1, hidden, hidden), torch.zeros(4, 1, hidden, device=device, dtype=dtype)

    def theirs() -> Tensor:
        product = functional.linear(x.transpose(0, 1), w_ih, bias).view(rows, shape.steps, 4, 1, hidden)
        states, _ = flashrnn(product, recurrent, zero, function="lstm", backend="cuda_fused", dtype=shape.dtype)
        if training:
            for leaf in (x, w_ih, bias, recurrent):
                leaf.grad = None
            states[0].sum().backward()
        return states

    def inferred() -> Tensor:
        with torch.inference_mode():
            return theirs()

    calls = {
        "ours": _call(lambda: _by_kernels(fused, x), fused, training, x),
        "FlashRNN": theirs if training else inferred,
    }
    return Contest(calls, None, rows * shape.steps)


def _texts(shape: Cell, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids (T, B) on the device, and lengths (B,) on the CPU."""
    generator = np.random.default_rng(0)
    lengths = draw_lengths(shape, generator)
    return draw_ids(shape, generator).to(device), lengths


def _options(shape: Cell) -> dict[str, Any]:
    return {"num_layers": shape.layers, "bidirectional": shape.bidirectional}


def _lstm(kind: type[nn.Module], shape: Cell) -> nn.Module:
    return kind(shape.embedding, shape.hidden, **_options(shape))


def _layers_and_input(shape: Cell, device: torch.device) -> tuple[nn.Module, nn.Module, Tensor]:
    """nn.LSTM and ours with the same weights; input (T, B, E)."""
    dtype = getattr(torch, shape.dtype)
    lstm, fused = _lstm(nn.LSTM, shape), _lstm(FusedLSTM, shape)
    fused.load_state_dict(lstm.state_dict())
    x = torch.randn(shape.steps, shape.rows, shape.embedding)
    return lstm.to(device, dtype), fused.to(device, dtype), x.to(device, dtype)


def _gradient(module: nn.Module) -> Tensor:
    """Of the first W_hh."""
    named = module.named_parameters()
    gradient = next(parameter.grad for name, parameter in named if name.endswith("weight_hh_l0"))
    assert gradient is not None
    return gradient


def _call(
    forward: Callable[[], tuple[Any, tuple[Tensor, Tensor]]],
    module: nn.Module,
    training: bool,
    given: Tensor | PackedSequence | None = None,
) -> Call:
    """One inference, or one training step: every gradient, that of the input ``given``, too."""
    if not training:
        module.eval()

        def infer() -> Tensor:
            with torch.inference_mode():
                return forward()[1][0]

        return infer
    leaf = given.data if isinstance(given, PackedSequence) else given

    def step() -> Tensor:
        module.zero_grad()
        if leaf is not None:
            leaf.grad = None
        forward()[1][0].sum().backward()
        return _gradient(module)

    return step

"""export_onnx: what ONNX Runtime computes of it is ours. And what PyTorch's own exporter makes of the modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, TextClassifier, export_onnx, onnx_export
from textclf_fast.models import MLPClassifier, MultiInputClassifier

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

V, E, H = 50, 5, 7
SIZES = [(1, 1), (9, 1), (4, 7), (11, 32)]  # T, B


def _run(file: Path, inputs: dict[str, Tensor]) -> list[np.ndarray]:
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


def _flat(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    else:
        for part in result:
            yield from _flat(part)


def _check(model: nn.Module, file: Path, with_lengths: bool) -> None:
    batch_first = next(m for m in model.modules() if isinstance(m, nn.LSTM)).batch_first
    for steps, rows in SIZES:
        lengths = torch.randint(1, steps + 1, (rows,))
        if isinstance(model, nn.LSTM):
            x = torch.randn(steps, rows, E)
        else:
            x = torch.randint(1, V, (steps, rows))
            x[torch.arange(steps).unsqueeze(1) >= lengths] = 0
        x = x.transpose(0, 1).contiguous() if batch_first else x
        inputs = {"input" if isinstance(model, nn.LSTM) else "ids": x}
        with torch.no_grad():
            wanted = list(_flat(model(x, lengths=lengths) if with_lengths else model(x)))
        given = _run(file, inputs | ({"lengths": lengths.int()} if with_lengths else {}))
        for one, other in zip(given, wanted, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("with_lengths", [False, True], ids=["dense", "lengths"])
@pytest.mark.parametrize("kind", ["lstm", "embedding", "classifier"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_first": True},
        {"num_layers": 2, "bidirectional": True},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
    ],
    ids=["plain", "batch_first", "deep", "deep, batch_first"],
)
@pytest.mark.compat("ONNX", "a standard LSTM node with lengths, any B and T: textclf_fast.export_onnx")
def test_onnx_runtime_computes_the_same(kind: str, options: dict[str, Any], with_lengths: bool, tmp_path: Path) -> None:
    model: nn.Module = {
        "lstm": lambda: FusedLSTM(E, H, **options),
        "embedding": lambda: FusedEmbeddingLSTM(V, E, H, **options),
        "classifier": lambda: TextClassifier(V, E, H, 3, **options),
    }[kind]().eval()
    file = tmp_path / "model.onnx"
    export_onnx(model, file, lengths=with_lengths)
    onnx.checker.check_model(onnx.load(file), full_check=True)
    _check(model, file, with_lengths)


def test_nn_lstm_without_biases(tmp_path: Path) -> None:
    lstm = nn.LSTM(E, H, bias=False)
    export_onnx(lstm, tmp_path / "model.onnx", lengths=False)
    _check(lstm, tmp_path / "model.onnx", False)


def test_classifier_without_padding(tmp_path: Path) -> None:
    model = TextClassifier(V, E, H, 3, padding_idx=None).eval()
    export_onnx(model, tmp_path / "model.onnx", lengths=False)
    _check(model, tmp_path / "model.onnx", False)


@pytest.mark.parametrize("with_lengths", [True, False])
@pytest.mark.parametrize("pooling", ["max", "mean", "concat"])
def test_pooled_classifiers(pooling: Any, with_lengths: bool, tmp_path: Path) -> None:
    for options in ({"bidirectional": True, "num_layers": 2}, {"batch_first": True}, {"padding_idx": None}):
        model = TextClassifier(V, E, H, 3, pooling=pooling, **options).eval()  # type: ignore[arg-type]
        export_onnx(model, tmp_path / "model.onnx", lengths=with_lengths)
        onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)
        _check(model, tmp_path / "model.onnx", with_lengths)


@pytest.mark.parametrize("with_lengths", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "relu", "mode": "sum", "num_layers": 2},
        {"embedding_dim": None, "token_weights": True},
        {"embedding_dim": None, "num_layers": 2, "batch_first": True},
        {"padding_idx": None, "token_weights": True},
    ],
)
def test_bags_of_words(options: dict[str, Any], with_lengths: bool, tmp_path: Path) -> None:
    model = MLPClassifier(V, options.pop("embedding_dim", E), H, 3, **options).eval()
    if model.token_weights is not None:
        model.set_token_weights(torch.rand(V) + 0.5)
    file = tmp_path / "model.onnx"
    export_onnx(model, file, lengths=with_lengths)
    onnx.checker.check_model(onnx.load(file), full_check=True)
    for steps, rows in SIZES:
        lengths = torch.randint(1, steps + 1, (rows,))
        ids = torch.randint(1, V, (steps, rows))
        ids[torch.arange(steps).unsqueeze(1) >= lengths] = 0
        ids = ids.T.contiguous() if model.batch_first else ids
        given = _run(file, {"ids": ids} | ({"lengths": lengths.int()} if with_lengths else {}))
        with torch.no_grad():
            wanted = model(ids, lengths) if with_lengths else model(ids)
        np.testing.assert_allclose(given[0], wanted.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("with_lengths", [True, False])
@pytest.mark.parametrize("head_dim", [None, 4])
def test_several_inputs(head_dim: int | None, with_lengths: bool, tmp_path: Path) -> None:
    """Two texts of one vocabulary, whose parts of the graph must not be taken for each other."""
    text = {"kind": "text", "embedding_dim": E, "hidden_dim": H, "num_layers": 2}
    inputs = {
        "title": {**text, "pooling": "max"},
        "a.b": {**text, "bidirectional": True},
        "speech": {"kind": "sequence", "size": 4, "hidden_dim": 3, "pooling": "concat"},
        "columns": {"kind": "columns", "size": 2, "hidden_dim": 3},
    }
    model = MultiInputClassifier(V, inputs, 3, head_dim=head_dim).eval()
    file = tmp_path / "model.onnx"
    export_onnx(model, file, lengths=with_lengths)
    onnx.checker.check_model(onnx.load(file), full_check=True)
    named = {given.name: given.type.tensor_type.shape.dim for given in onnx.load(file).graph.input}
    assert (named["title.ids"][0].dim_param, named["a.b.ids"][0].dim_param) == ("title.T", "a.b.T")
    steps, rows = 6, 4
    lengths = {name: torch.randint(1, steps + 1, (rows,)) for name in ("title", "a.b", "speech")}
    parts = {name: torch.randint(1, V, (steps, rows)) for name in ("title", "a.b")}
    for name, ids in parts.items():
        ids[torch.arange(steps).unsqueeze(1) >= lengths[name]] = 0
    parts.update(speech=torch.randn(steps + 3, rows, 4), columns=torch.randn(rows, 2))
    kinds = {"title": "ids", "a.b": "ids", "speech": "input", "columns": "columns"}
    feed = {f"{name}.{kinds[name]}": part for name, part in parts.items()}
    given: dict[str, Any] = dict(parts)
    if with_lengths:
        feed |= {f"{name}.lengths": each.int() for name, each in lengths.items()}
        given |= {name: (parts[name], each) for name, each in lengths.items()}
    with torch.no_grad():
        np.testing.assert_allclose(_run(file, feed)[0], model(given).numpy(), rtol=0, atol=1e-5)


def test_embedding_with_max_norm_is_left_as_it_is(tmp_path: Path) -> None:
    embedding = nn.Embedding(V, E, max_norm=0.5)
    before = embedding.weight.detach().clone()
    model = FusedEmbeddingLSTM.from_modules(embedding, nn.LSTM(E, H))
    export_onnx(model, tmp_path / "model.onnx", lengths=False)
    assert torch.equal(embedding.weight, before)
    _check(model, tmp_path / "model.onnx", False)


def test_gates_are_reordered() -> None:
    i, f, g, o = (torch.full((2, 3), value) for value in (1.0, 2.0, 3.0, 4.0))
    assert onnx_export.reorder_gates(torch.cat((i, f, g, o)))[::2, 0].tolist() == [1, 4, 2, 3]  # i, o, f, c


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ONNX's LSTM has no projection, expected proj_size = 0, got 3"):
        export_onnx(FusedLSTM(E, H, proj_size=3), tmp_path / "model.onnx")
    with pytest.raises(TypeError, match=r"model: expected a FusedLSTM, .* got Linear"):
        export_onnx(nn.Linear(2, 2), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_without_onnx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'textclf_fast\[onnx\]'"):
        export_onnx(FusedLSTM(E, H), tmp_path / "model.onnx")


# ---- torch.onnx.export by tracing, which writes what PyTorch's own LSTM path does -------------------


class _Packed(nn.Module):
    def __init__(self, lstm: nn.Module) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.lstm(x, lengths=lengths)[0]


def _trace(model: nn.Module, args: tuple[Tensor, ...], names: list[str], file: Path) -> None:
    axes = {name: {0: "B"} if name == "lengths" else {0: "T", 1: "B"} for name in names}
    torch.onnx.export(model, args, str(file), dynamo=False, input_names=names, dynamic_axes=axes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["lstm", "embedding"])
@pytest.mark.compat("ONNX", "torch.onnx.export(dynamo=False), with lengths too")
def test_pytorchs_exporter(kind: str, tmp_path: Path) -> None:
    model = FusedLSTM(E, H, bidirectional=True) if kind == "lstm" else FusedEmbeddingLSTM(V, E, H)
    x, lengths = torch.randn(6, 3, E) if kind == "lstm" else torch.randint(V, (6, 3)), torch.tensor([4, 6, 1])
    file = tmp_path / "model.onnx"
    with torch.no_grad():
        _trace(model.eval(), (x,), ["x"], file)
        _trace(_Packed(model), (x, lengths), ["x", "lengths"], tmp_path / "packed.onnx")
        x = torch.randn(8, 4, E) if kind == "lstm" else torch.randint(V, (8, 4))
        lengths = torch.tensor([1, 8, 3, 8])
        wanted, packed = model(x)[0], model(x, lengths=lengths)[0]
    np.testing.assert_allclose(_run(file, {"x": x})[0], wanted.numpy(), rtol=0, atol=1e-5)
    given = _run(tmp_path / "packed.onnx", {"x": x, "lengths": lengths})[0]
    np.testing.assert_allclose(given, packed.numpy(), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning")
def test_pytorchs_exporter_cannot_write_the_classifier(tmp_path: Path) -> None:
    model = TextClassifier(V, E, H, 2).eval()
    with pytest.raises(RuntimeError, match=r"use dynamo=True, or textclf_fast\.export_onnx"):
        _trace(model, (torch.randint(1, V, (6, 3)),), ["x"], tmp_path / "model.onnx")

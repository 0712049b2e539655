"""The other side of a comparison computes what nn.LSTM computes; the measuring of memory sees an allocation."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import peers
from benchmarks.calls import make_contest
from benchmarks.cells import Cell
from benchmarks.memory_step import peak_growth
from textclf_fast import onnx_export


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_graph_computes_what_pytorch_does(layers: int, bidirectional: bool, with_lengths: bool) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    embedding = nn.Embedding(20, 5)
    lstm = nn.LSTM(5, 7, num_layers=layers, bidirectional=bidirectional)
    ids = torch.randint(20, (6, 3))
    lengths = torch.tensor([4, 6, 1]) if with_lengths else None
    model = peers._onnx_model(embedding, lstm, 6, 3, with_lengths)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    inputs = {"ids": ids.numpy()}
    if lengths is not None:
        inputs["lengths"] = lengths.to(torch.int32).numpy()
    given = runtime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, inputs)
    wanted = peers._expected(embedding, lstm, ids, lengths)
    assert len(given) == len(wanted) == 3
    for one, other in zip(given, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [peers.ONNX_RUNTIME, peers.ONNX_RUNTIME_LENGTHS, peers.OPENVINO])
def test_a_wrong_peer_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("openvino" if name == peers.OPENVINO else "onnxruntime")
    embedding, lstm = nn.Embedding(20, 5), nn.LSTM(5, 7)
    ids, lengths = torch.randint(20, (6, 3)), torch.tensor([4, 6, 1])
    calls, notes = peers.make_peers(embedding, lstm, ids, lengths, "float32")
    assert name in calls
    assert "threads" in notes[name]
    calls[name]()
    monkeypatch.setattr(onnx_export, "reorder_gates", lambda tensor: tensor.detach().numpy())
    with pytest.raises(AssertionError, match=r"ONNX Runtime|OpenVINO"):
        peers.make_peers(embedding, lstm, ids, lengths, "float32")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_every_setting_computes_the_same(name: str) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip(name)
    embedding, lstm = nn.Embedding(20, 5), nn.LSTM(5, 7)
    ids = torch.randint(20, (6, 3))
    model = peers._onnx_model(embedding, lstm, 6, 3, False)
    if name == "onnxruntime":
        candidates = list(peers._onnx_runtime(model, {"ids": ids.numpy()}, 2))
    else:
        candidates = list(peers._openvino(model, ids.numpy(), 2, "float32"))
    assert len({settings for settings, *_ in candidates}) == 3  # two threads in two ways, and one
    wanted = peers._expected(embedding, lstm, ids, None)
    for _, call, outputs in candidates:
        call()
        for one, other in zip(outputs(), wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    calls, notes = peers.make_peers(nn.Embedding(20, 5), nn.LSTM(5, 7), torch.randint(20, (6, 3)), None, "float32")
    assert calls == {}
    assert notes[peers.OPENVINO].startswith("not installed: ")
    assert peers.versions() == {}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("cell", "names"),
    [
        (Cell(2, 5, 4, 8, vocabulary=30), ["padded"]),
        (Cell(3, 6, 4, 8, fill=0.5, vocabulary=30, layers=2, bidirectional=True), ["padded", "packed"]),
        (Cell(3, 6, 4, 8, form="float"), ["padded"]),
        (Cell(3, 6, 4, 8, fill=0.5, form="packed"), ["packed"]),
        (Cell(3, 6, 4, 8, vocabulary=30, dtype="bfloat16"), ["our float32", "padded"]),
    ],
    ids=lambda value: value.id if isinstance(value, Cell) else "",
)
def test_everybody_in_a_contest_runs(cell: Cell, names: list[str], training: bool) -> None:
    contest = make_contest(cell, training, others=False)
    assert list(contest.peers) == names
    assert contest.positions <= cell.rows * cell.steps
    assert (contest.distinct > 0) == (cell.form == "tokens")
    for call in (contest.ours, *contest.peers.values()):
        call()
        call()


def test_everybody_in_the_contest_of_int8_runs() -> None:
    contest = make_contest(Cell(1, 5, 4, 8, vocabulary=30, int8=True), training=False)
    assert list(contest.peers) == ["our float32", "PyTorch int8", "padded"]
    h_n = {name: call()[1][0] for name, call in {"ours": contest.ours, **contest.peers}.items()}
    for name in ("ours", "PyTorch int8"):
        assert 1e-5 < (h_n[name] - h_n["padded"]).abs().max() < 0.05, name
    torch.testing.assert_close(h_n["our float32"], h_n["padded"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_peak_memory_sees_what_is_gone_again() -> None:
    def allocate() -> None:
        torch.zeros(2**24).add_(1)  # 64 MiB, written, freed before the call ends

    try:
        grown = peak_growth(allocate)
    except PermissionError:
        pytest.skip("/proc/self/clear_refs is read-only here")
    assert 0.9 * 2**26 < grown < 1.3 * 2**26

"""MultiInputClassifier against its parts in plain PyTorch; inputs in every form; errors that name the input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_sequence

import textclf_fast
from textclf_fast.models import MultiInputClassifier, make_classifier
from textclf_fast.text import DataError, Vocabulary
from textclf_fast.training import load_model, save_model

V, B, F, C = 30, 4, 3, 5
INPUTS: dict[str, dict[str, Any]] = {
    "text": {"kind": "text", "embedding_dim": 6, "hidden_dim": 7},
    "frames": {"kind": "sequence", "size": F, "hidden_dim": 4, "bidirectional": True, "pooling": "concat"},
    "columns": {"kind": "columns", "size": 2, "hidden_dim": 8},
}


@pytest.fixture
def batch() -> dict[str, Any]:
    texts = [torch.randint(1, V, (n,)) for n in (3, 7, 1, 5)]
    frames = torch.randn(6, B, F)
    return {"text": pad_sequence(texts), "frames": (frames, torch.tensor([2, 6, 5, 1])), "columns": torch.randn(B, 2)}


def _plain(model: MultiInputClassifier, batch: dict[str, Any]) -> Tensor:
    """Row by row, on nn.LSTM with the same weights."""
    text, frames, columns = (model.encoder(name) for name in INPUTS)
    reader = nn.LSTM(6, 7, dtype=model.fc.weight.dtype)
    reader.load_state_dict(text.encoder.lstm.state_dict())
    watcher = nn.LSTM(F, 4, bidirectional=True, dtype=model.fc.weight.dtype)
    watcher.load_state_dict(frames.lstm.state_dict())
    rows = []
    for b in range(B):
        ids = batch["text"][:, b]
        _, (read, _) = reader(text.encoder.embedding(ids[ids != 0]))
        x, lengths = batch["frames"]
        output, (h_n, _) = watcher(x[: lengths[b], b])
        seen = torch.cat((h_n[0], h_n[1], output.max(0).values, output.mean(0)))
        rows.append(torch.cat((read[0], seen, torch.relu(columns.linear(batch["columns"][b])))))
    joined = torch.stack(rows)
    return model.fc(joined if model.head is None else torch.relu(model.head(joined)))


@pytest.mark.parametrize("head_dim", [None, 9])
def test_against_its_parts(batch: dict[str, Any], head_dim: int | None) -> None:
    model = MultiInputClassifier(V, INPUTS, C, head_dim=head_dim).double()
    doubled = {
        **batch,
        "frames": (batch["frames"][0].double(), batch["frames"][1]),
        "columns": batch["columns"].double(),
    }
    found, want = model(doubled), _plain(model, doubled)
    assert found.shape == (B, C)
    torch.testing.assert_close(found, want)
    shared = {name: p for name, p in model.named_parameters() if not name.startswith("encoders") or "linear" in name}
    grads = [
        torch.autograd.grad(logits.sin().sum(), list(shared.values()), retain_graph=True) for logits in (found, want)
    ]
    torch.testing.assert_close(*grads)
    found.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_every_form_of_a_batch(batch: dict[str, Any]) -> None:
    model = MultiInputClassifier(V, INPUTS, C)
    want = model(batch)
    ids, (frames, lengths) = batch["text"], batch["frames"]
    ids_lengths = (ids != 0).sum(0)
    texts = [ids[:n, b] for b, n in enumerate(ids_lengths.tolist())]
    junk = frames.clone()
    for b, n in enumerate(lengths.tolist()):
        junk[n:, b] = float("nan")
    for text in ((ids, ids_lengths), (ids, None), pack_sequence(texts, enforce_sorted=False)):
        for sequence in (
            (junk, lengths.tolist()),
            pack_padded_sequence(frames, lengths, enforce_sorted=False),
        ):
            torch.testing.assert_close(model({"columns": batch["columns"], "frames": sequence, "text": text}), want)
    first = MultiInputClassifier(V, INPUTS, C, batch_first=True)
    first.load_state_dict(model.state_dict())
    turned = {"text": ids.T, "frames": (frames.transpose(0, 1), lengths), "columns": batch["columns"]}
    torch.testing.assert_close(first(turned), want)
    model.prepare_inference()
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(batch), want)
    dense = {**batch, "frames": frames}
    torch.testing.assert_close(model(dense), model({**batch, "frames": (frames, [6] * B)}))


def test_each_input_matters(batch: dict[str, Any]) -> None:
    model = MultiInputClassifier(V, INPUTS, C)
    want = model(batch)
    others = {"text": batch["text"].flip(1), "frames": batch["frames"][0], "columns": batch["columns"] + 1}
    for name, other in others.items():
        assert not torch.allclose(model({**batch, name: other}), want)


def test_one_input_alone(batch: dict[str, Any]) -> None:
    for name, config in INPUTS.items():
        model = MultiInputClassifier(V if name == "text" else None, {name: config}, C, dropout=0.5)
        assert model({name: batch[name]}).shape == (B, C)
        assert not torch.equal(model({name: batch[name]}), model({name: batch[name]}))


def test_saved_and_loaded(tmp_path: Path, batch: dict[str, Any]) -> None:
    inputs = {**INPUTS, "values.2": {"kind": "sequence", "size": F, "hidden_dim": 2, "variational_dropout": (0.1, 0.2)}}
    model = MultiInputClassifier(V, inputs, C, head_dim=6).eval()
    config = json.loads(json.dumps({"kind": model.kind, **model.config}))
    again = make_classifier(config)
    assert {"kind": again.kind, **again.config} == config
    vocabulary = Vocabulary(["<pad>", "<unk>", *(f"w{number}" for number in range(V - 2))])
    save_model(tmp_path / "model", model, vocabulary, [f"class {c}" for c in range(C)])
    loaded = load_model(tmp_path / "model")
    batch["values.2"] = batch["frames"]
    assert torch.equal(loaded.model(batch), model(batch))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"model: expected one that takes one text, got inputs \['text', 'frames'"):
        textclf_fast.load(tmp_path / "model")


def test_bad_configurations() -> None:
    with pytest.raises(ValueError, match="inputs: expected at least one, by name"):
        MultiInputClassifier(V, {}, C)
    with pytest.raises(ValueError, match=r"inputs\['x'\]: kind: expected one of text, sequence, columns, got 'image'"):
        MultiInputClassifier(V, {"x": {"kind": "image"}}, C)
    with pytest.raises(ValueError, match=r"inputs\['text'\]: vocab_size: expected the number of tokens"):
        MultiInputClassifier(None, INPUTS, C)
    with pytest.raises(TypeError, match=r"inputs\['x'\]: .*'hidden_dim'"):
        MultiInputClassifier(V, {"x": {"kind": "columns", "size": 3}}, C)
    with pytest.raises(ValueError, match=r"inputs\['x'\]: pooling: expected one of"):
        MultiInputClassifier(V, {"x": {"kind": "sequence", "size": 3, "hidden_dim": 3, "pooling": "sum"}}, C)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"columns": None}, TypeError, r"inputs\['columns'\]: input: expected a tensor, got NoneType"),
        (
            {"columns": torch.ones(B, 3)},
            ValueError,
            r"inputs\['columns'\]: input: expected shape \(B, 2\), got \(4, 3\)",
        ),
        ({"columns": torch.ones(B + 1, 2)}, ValueError, r"inputs\['columns'\]: expected 4 rows, as 'text' has, got 5"),
        ({"text": torch.full((2, B), V)}, IndexError, r"inputs\['text'\]: ids: token id 30"),
        ({"text": [1]}, ValueError, r"inputs\['text'\]: input: expected a pair of a tensor and lengths, got 1 things"),
        ({"frames": "x"}, TypeError, r"inputs\['frames'\]: input: expected a tensor, a pair .*, got str"),
        (
            {"frames": torch.ones(6, B)},
            ValueError,
            r"inputs\['frames'\]: input: expected shape \(T, B, F\), got \(6, 4\)",
        ),
        ({"frames": torch.ones(6, B, F + 1)}, RuntimeError, r"inputs\['frames'\]: input.size\(-1\) must be equal"),
        ({"frames": (torch.ones(6, B, F), [7] * B)}, RuntimeError, r"inputs\['frames'\]: .*length"),
        ({"other": torch.ones(B, 2)}, ValueError, "inputs: 'other' is unknown"),
    ],
)
def test_bad_inputs(batch: dict[str, Any], change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MultiInputClassifier(V, INPUTS, C)({**batch, **change})


def test_missing_inputs(batch: dict[str, Any]) -> None:
    model = MultiInputClassifier(V, INPUTS, C)
    for name in INPUTS:
        with pytest.raises(ValueError, match=f"inputs: {name!r} is missing; there are"):
            model({other: value for other, value in batch.items() if other != name})
    with pytest.raises(TypeError, match=r"inputs: expected a mapping of 'text', 'frames', 'columns' .*, got Tensor"):
        model(batch["text"])

"""Pooling over a text's own tokens: the same from every form of a batch, against plain PyTorch row by row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_sequence

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, TextClassifier
from textclf_fast.models.pooling import pooled_width, run_pooled

V, E, H, C = 50, 6, 5, 3
POOLINGS = ["max", "mean", "concat"]
OPTIONS = [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}]


@pytest.fixture
def texts() -> list[Tensor]:
    return [torch.randint(1, V, (n,)) for n in (3, 7, 1, 5, 7)]


def _plain(model: TextClassifier, texts: list[Tensor], pooling: str) -> Tensor:
    """Row by row, on nn.LSTM with the same parameters."""
    ours = model.encoder.lstm
    lstm = nn.LSTM(E, H, ours.num_layers, bidirectional=ours.bidirectional, dtype=model.fc.weight.dtype)
    lstm.load_state_dict(ours.state_dict())
    for name, _ in lstm.named_parameters():
        setattr(lstm, name, getattr(ours, name))
    pooled = []
    for text in texts:
        output, (h_n, _) = lstm(model.encoder.embedding(text))
        last = torch.cat(tuple(h_n[-2:] if ours.bidirectional else h_n[-1:]))
        ways = {"last": last, "max": output.max(0).values, "mean": output.mean(0)}
        pooled.append(torch.cat(tuple(ways.values())) if pooling == "concat" else ways[pooling])
    return model.fc(torch.stack(pooled))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_form_of_a_batch(texts: list[Tensor], pooling: Any, options: dict[str, Any], grad: bool) -> None:
    model = TextClassifier(V, E, H, C, **options, pooling=pooling)
    first = TextClassifier(V, E, H, C, **options, pooling=pooling, batch_first=True)
    first.load_state_dict(model.state_dict())
    lengths = torch.tensor([len(text) for text in texts])
    with torch.set_grad_enabled(grad):
        want = _plain(model, texts, pooling)
        for extra in (0, 4):
            ids = pad_sequence([*texts, torch.zeros(7 + extra, dtype=torch.int64)])[:, :-1]
            for found in (
                model(ids),
                model(ids, lengths),
                model(ids, lengths.tolist()),
                first(ids.T),
                first(ids.T.contiguous(), lengths),
                model(pack_sequence(texts, enforce_sorted=False)),
            ):
                torch.testing.assert_close(found, want)
        by_length = sorted(texts, key=len, reverse=True)  # without indices of sorting
        torch.testing.assert_close(model(pack_sequence(by_length)), _plain(model, by_length, pooling))
        torch.testing.assert_close(model(texts[1].unsqueeze(1)), want[1:2])
        dense = torch.randint(1, V, (4, 3))  # no padding at all
        torch.testing.assert_close(model(dense), _plain(model, list(dense.T), pooling))


@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients(texts: list[Tensor], pooling: Any, packed: bool) -> None:
    model = TextClassifier(V, E, H, C, bidirectional=True, pooling=pooling).double()
    parameters = dict(model.named_parameters())
    batch = pack_sequence(texts, enforce_sorted=False) if packed else pad_sequence(texts)
    labels = torch.tensor([0, 1, 2, 1, 0])
    found, want = (
        torch.autograd.grad(nn.functional.cross_entropy(logits, labels), list(parameters.values()))
        for logits in (model(batch), _plain(model, texts, pooling))
    )
    for name, ours, plain in zip(parameters, found, want, strict=True):
        torch.testing.assert_close(ours, plain, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradcheck_of_float_sequences(pooling: Any) -> None:
    lstm = FusedLSTM(2, 3, bidirectional=True).double()
    x = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor) -> Tensor:
        return run_pooled(lstm, x, [2, 4, 1], pooling)

    assert torch.autograd.gradcheck(run, x)
    assert torch.autograd.gradgradcheck(run, x)


def test_every_pooling_of_a_hidden_state_that_is_negative_throughout() -> None:
    """Where zeros of the padding would be the largest."""
    lstm = FusedLSTM(1, 2)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.zero_()
        lstm.bias_ih_l0[4:6] = -3.0  # g
    x = torch.zeros(5, 2, 1)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            pooled = run_pooled(lstm, x, [1, 5], "max")
            assert (pooled < -0.1).all()
            assert torch.equal(pooled[:1], run_pooled(lstm, x[:1, :1], None, "max"))


@pytest.mark.parametrize("pooling", ["last", *POOLINGS])
def test_bfloat16(texts: list[Tensor], pooling: Any) -> None:
    model = TextClassifier(V, E, 8, C, pooling=pooling)
    want = model(pad_sequence(texts))
    low = model.to(torch.bfloat16)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for batch in (pad_sequence(texts), pack_sequence(texts, enforce_sorted=False)):
                found = low(batch)
                assert found.dtype == torch.bfloat16
                torch.testing.assert_close(found.float(), want, atol=0.02, rtol=0.02)


def test_frozen_and_int8(texts: list[Tensor]) -> None:
    model = TextClassifier(V, E, H, C, pooling="concat").eval()
    ids = pad_sequence(texts)
    want = model(ids)
    for weights, tolerance in ((None, 1e-5), ("int8", 0.05)):
        model.prepare_inference(weights)
        with torch.no_grad():
            for batch in (ids, pack_sequence(texts, enforce_sorted=False)):
                torch.testing.assert_close(model(batch), want, atol=tolerance, rtol=0)


def test_compiled_and_exported() -> None:
    model = TextClassifier(V, E, H, C, pooling="concat")
    ids, lengths = torch.randint(1, V, (6, 3)), torch.tensor([2, 6, 1])
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(ids, lengths), model(ids, lengths))
    torch._dynamo.reset()
    steps, rows = torch.export.Dim("T"), torch.export.Dim("B")
    with torch.no_grad():
        sizes = {"ids": {0: steps, 1: rows}, "lengths": {0: rows}}
        program = torch.export.export(model.eval(), (ids, lengths), dynamic_shapes=sizes)
        ids, lengths = torch.randint(1, V, (9, 4)), torch.tensor([9, 1, 4, 8])
        torch.testing.assert_close(program.module()(ids, lengths), model(ids, lengths))


def test_widths() -> None:
    lstm = FusedLSTM(2, 3, bidirectional=True)
    assert [pooled_width(lstm, pooling) for pooling in ("last", "max", "mean", "concat")] == [6, 6, 6, 18]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="pooling: expected one of 'last', 'max', 'mean', 'concat', got 'sum'"):
        TextClassifier(V, E, H, C, pooling="sum")  # type: ignore[arg-type]
    model = TextClassifier(V, E, H, C, pooling="max")
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            with pytest.raises(IndexError, match=r"ids: token id 50 at \(1, 0\)"):
                model(torch.tensor([[1, 2], [50, 2]]))
            with pytest.raises(ValueError, match="ids: row 1 holds padding alone"):
                model(torch.tensor([[1, 0], [2, 0]]))
            with pytest.raises(ValueError, match="lengths: got 1 lengths, expected 2"):
                model(torch.ones(2, 2, dtype=torch.int64), [1])
            with pytest.raises(ValueError, match=r"batch: expected 2 dimensions, got shape \(3,\)"):
                model(torch.ones(3, dtype=torch.int64))
            with pytest.raises(TypeError, match="ids: expected dtype"):
                model(torch.ones(2, 2))


# ---- Options of AWD-LSTM -------------------------------------------------------------------------

AWD = {"embedding_dropout": 0.3, "weight_dropout": 0.4, "variational_dropout": (0.2, 0.1)}


@pytest.mark.parametrize("pooling", ["last", "concat"])
def test_dropouts_reach_the_lstm_in_training_alone(texts: list[Tensor], pooling: Any) -> None:
    model = TextClassifier(V, E, H, C, num_layers=2, pooling=pooling, **AWD)  # type: ignore[arg-type]
    assert model.encoder.embedding_dropout == 0.3
    assert model.encoder.lstm.options.weight_dropout == 0.4
    assert model.encoder.lstm.options.variational_dropout == (0.2, 0.1)
    plain = TextClassifier(V, E, H, C, num_layers=2, pooling=pooling)
    plain.load_state_dict(model.state_dict())
    ids = pad_sequence(texts)
    assert not torch.equal(model(ids), model(ids))
    torch.testing.assert_close(model.eval()(ids), plain(ids))


def test_config_is_json(texts: list[Tensor]) -> None:
    import json

    from textclf_fast.models import make_classifier

    model = TextClassifier(V, E, H, C, num_layers=2, pooling="concat", **AWD)  # type: ignore[arg-type]
    config = json.loads(json.dumps({"kind": model.kind, **model.config}))
    again = make_classifier(config)
    assert {"kind": again.kind, **again.config} == config
    again.load_state_dict(model.state_dict())
    ids = pad_sequence(texts)
    assert torch.equal(again.eval()(ids), model.eval()(ids))


def test_defaults_are_as_they_were() -> None:
    model = TextClassifier(V, E, H, C)
    assert "pooling" not in model.__dict__
    assert isinstance(model.encoder, FusedEmbeddingLSTM)
    assert model.encoder.extra_repr() == ""
    assert sorted(model.state_dict()) == [
        "encoder.embedding.weight",
        *(f"encoder.lstm.{kind}_{part}_l0" for kind in ("bias", "weight") for part in ("hh", "ih")),
        "fc.bias",
        "fc.weight",
    ]

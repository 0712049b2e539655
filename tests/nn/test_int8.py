"""`prepare_inference("int8")`: which calls use int8, what drops it, where it is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from textclf_fast import FusedEmbeddingLSTM, TextClassifier

V, E, H = 23, 6, 33


def _module(**options: Any) -> FusedEmbeddingLSTM:
    return FusedEmbeddingLSTM(V, E, H, **options)


def _uses_int8(fused: FusedEmbeddingLSTM, *arguments: Any) -> bool:
    """Whether the result is nn.LSTM's but for what int8 makes of it."""
    with torch.no_grad():
        _, (h_n, _) = fused(*arguments)
        _, (want, _) = nn.LSTM.forward(fused.lstm, fused.embedding(arguments[0]), *arguments[2:])
    error = float((h_n - want).abs().max())
    assert error < 1e-2
    return error > 1e-5


IDS = torch.arange(2 * V).remainder(V).view(-1, 2)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"batch_first": True}, {"bias": False}], ids=str)
def test_every_form_of_ids_gives_the_same(int8_isa: str, options: dict[str, Any]) -> None:
    fused = _module(**options)
    texts = [torch.randint(0, V, (n,)) for n in (3, 7, 1, 5)]
    lengths = torch.tensor([3, 7, 1, 5])
    ids = nn.utils.rnn.pad_sequence(texts, batch_first=fused.lstm.batch_first)
    with torch.no_grad():
        want, (want_h, want_c) = fused(ids, lengths)
        fused.prepare_inference("int8")
        output, (h_n, c_n) = fused(ids, lengths)
        for a, b in ((output, want), (h_n, want_h), (c_n, want_c)):
            assert 1e-5 < (a - b).abs().max() < 1e-2
        for form in ((ids, lengths.tolist()), (ids.int(), lengths), (pack_sequence(texts, False),)):
            other, (h, c) = fused(*form)
            assert torch.equal(h, h_n)
            assert torch.equal(c, c_n)
            if isinstance(other, Tensor):
                assert torch.equal(other, output)
        none, (h, _) = fused(ids, lengths, need_output=False)
        assert none is None
        assert torch.equal(h, h_n)
        for row, text in enumerate(texts):
            _, (h, c) = fused(text)
            assert torch.equal(h, h_n[:, row])
            assert torch.equal(c, c_n[:, row])


def test_given_states_take_the_weights_as_they_are() -> None:
    fused = _module()
    fused.prepare_inference("int8")
    assert _uses_int8(fused, IDS)
    states = (torch.randn(1, 2, H) * 3, torch.randn(1, 2, H))
    assert not _uses_int8(fused, IDS, None, states)
    assert _uses_int8(fused, IDS)


def test_it_is_off_until_asked_for_and_can_be_ended() -> None:
    fused = _module()
    assert not _uses_int8(fused, IDS)
    fused.prepare_inference()
    assert not _uses_int8(fused, IDS)
    fused.prepare_inference("int8")
    assert _uses_int8(fused, IDS)
    with torch.inference_mode():
        assert _uses_int8(fused, IDS)
    fused.prepare_inference()
    assert not _uses_int8(fused, IDS)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.lstm.weight_hh_l0.mul_(0.5),
        lambda m: m.lstm.bias_hh_l0.add_(1),
        lambda m: m.embedding.weight[3].zero_(),
        lambda m: m.load_state_dict({k: v + 0.1 for k, v in m.state_dict().items()}),
        lambda m: setattr(m.lstm, "weight_hh_l0", nn.Parameter(torch.ones_like(m.lstm.weight_hh_l0) / H)),
        lambda m: m.projected_table.clear(),
        lambda m: m.double().float(),
    ],
)
def test_a_change_of_the_weights_drops_it(change: Callable[[FusedEmbeddingLSTM], object]) -> None:
    fused = _module()
    fused.prepare_inference("int8")
    with torch.no_grad():
        change(fused)
    assert not _uses_int8(fused, IDS)
    fused.prepare_inference("int8")
    assert _uses_int8(fused, IDS)


def test_training_drops_it_and_never_uses_it() -> None:
    fused = _module()
    plain = copy.deepcopy(fused)
    fused.prepare_inference("int8")
    for module in (fused, plain):
        module(IDS)[0].sum().backward()
    assert torch.equal(fused.lstm.weight_hh_l0.grad, plain.lstm.weight_hh_l0.grad)
    assert not _uses_int8(fused, IDS)
    fused.prepare_inference("int8")
    torch.optim.Adam(fused.parameters(), fused=True).step()
    assert not _uses_int8(fused, IDS)


def test_copies_do_not_have_it() -> None:
    fused = _module()
    fused.prepare_inference("int8")
    assert not _uses_int8(copy.deepcopy(fused), IDS)
    assert _uses_int8(fused, IDS)


def test_a_bad_id_is_named() -> None:
    fused = _module()
    fused.prepare_inference("int8")
    with torch.no_grad(), pytest.raises(IndexError, match=r"ids: token id 99 at \(1, 0\), expected 0 <= id < 23"):
        fused(torch.tensor([[1], [99]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 2}, "weights: 'int8' is for num_layers = 1, and this module's is 2"),
        ({"proj_size": 4}, "weights: 'int8' is for proj_size = 0, and this module's is 4"),
        ({"dtype": torch.float64}, "weights: 'int8' is for dtype = torch.float32, and this module's is torch.float64"),
        ({"max_table_bytes": 0}, "weights: 'int8' needs the table of projected tokens"),
    ],
)
def test_where_it_is_refused(options: dict[str, Any], message: str) -> None:
    fused = _module(**options)
    with pytest.raises(ValueError, match=message):
        fused.prepare_inference("int8")
    with torch.no_grad():
        fused(IDS)


def test_refused_for_computed_weights_and_unknown_values() -> None:
    fused = _module()
    with pytest.raises(ValueError, match="weights: expected None or 'int8', got 'int4'"):
        fused.prepare_inference("int4")  # type: ignore[arg-type]
    with torch.inference_mode():
        inside = _module()
        with pytest.raises(ValueError, match="weights: 'int8' needs the table"):
            inside.prepare_inference("int8")


def test_classifier() -> None:
    model = TextClassifier(V, E, H, 3).eval()
    ids = torch.randint(1, V, (9, 4))
    with torch.inference_mode():
        want = model(ids)
        model.prepare_inference("int8")
        got = model(ids)
    assert 1e-6 < (got - want).abs().max() < 1e-2

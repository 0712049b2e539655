"""TextClassifier: right whatever the padding, and interchangeable with the same classifier in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence, pad_sequence

from textclf_fast import TextClassifier
from textclf_fast.models import PlainTextClassifier

V, E, H, C = 50, 6, 9, 3


@pytest.fixture
def texts() -> list[Tensor]:
    return [torch.randint(1, V, (n,)) for n in (3, 7, 1, 5, 7)]


def _lengths(texts: list[Tensor]) -> Tensor:
    return torch.tensor([len(text) for text in texts])


def test_padding_never_matters_here_but_does_in_the_usual_code(texts: list[Tensor]) -> None:
    plain = PlainTextClassifier(V, E, H, C)
    ours = TextClassifier(V, E, H, C)
    ours.load_state_dict(plain.state_dict())
    alone = torch.cat([ours(text.unsqueeze(1)) for text in texts])
    for extra in (0, 1, 10):
        ids = pad_sequence([*texts, torch.zeros(7 + extra, dtype=torch.int64)])[:, :-1]
        torch.testing.assert_close(ours(ids), alone)
        torch.testing.assert_close(ours(ids, _lengths(texts)), alone)
        # The usual code reads the last step of the padded batch: right for the longest texts alone, and for none with
        # more padding.
        usual = plain(ids)
        assert not torch.allclose(usual[[0, 2, 3]], alone[[0, 2, 3]], atol=1e-3)
        assert torch.allclose(usual[[1, 4]], alone[[1, 4]], atol=1e-6) == (extra == 0)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"proj_size": 4}], ids=str)
def test_all_forms_of_a_batch_agree(texts: list[Tensor], options: dict[str, int]) -> None:
    ours = TextClassifier(V, E, H, C, **options)
    ids, lengths = pad_sequence(texts), _lengths(texts)
    want = ours(ids)
    assert want.shape == (len(texts), C)
    torch.testing.assert_close(ours(ids, lengths), want)
    torch.testing.assert_close(ours(ids, lengths.tolist()), want)
    torch.testing.assert_close(ours(pack_sequence(texts, enforce_sorted=False)), want)
    first = TextClassifier(V, E, H, C, **options, batch_first=True)
    first.load_state_dict(ours.state_dict())
    torch.testing.assert_close(first(ids.T), want)
    torch.testing.assert_close(first(ids.T, lengths), want)


def test_against_the_packed_plain_classifier(texts: list[Tensor]) -> None:
    plain = PlainTextClassifier(V, E, H, C, layout="packed").double()
    ours = TextClassifier(V, E, H, C).double()
    assert not ours.load_state_dict(plain.state_dict()).missing_keys
    ids, lengths = pad_sequence(texts), _lengths(texts)
    labels = torch.tensor([0, 1, 2, 1, 0])
    for model in (plain, ours):
        torch.nn.functional.cross_entropy(model(ids, lengths), labels).backward()
    torch.testing.assert_close(ours(ids), plain(ids, lengths))
    gradients = {name.removeprefix("encoder."): p.grad for name, p in ours.named_parameters()}
    for name, p in plain.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, msg=lambda m, n=name: f"{n}: {m}")


def test_against_the_packed_plain_classifier_with_a_projection(texts: list[Tensor]) -> None:
    ours = TextClassifier(V, E, H, C, bidirectional=True, proj_size=4).double()
    lstm = torch.nn.LSTM(E, H, bidirectional=True, proj_size=4).double()
    lstm.load_state_dict(ours.encoder.lstm.state_dict())
    embedded = [ours.encoder.embedding(text) for text in texts]
    _, (h_n, _) = lstm(pack_sequence(embedded, enforce_sorted=False))
    torch.testing.assert_close(ours(pad_sequence(texts)), ours.fc(torch.cat([h_n[0], h_n[1]], 1)))


def test_state_dict_of_its_own_and_within_a_larger_model(texts: list[Tensor]) -> None:
    ours, other = TextClassifier(V, E, H, C), TextClassifier(V, E, H, C)
    other.load_state_dict(ours.state_dict())
    assert torch.equal(ours(pad_sequence(texts)), other(pad_sequence(texts)))
    plain, larger = (
        torch.nn.Sequential(PlainTextClassifier(V, E, H, C)),
        torch.nn.Sequential(TextClassifier(V, E, H, C)),
    )
    larger.load_state_dict(plain.state_dict())
    assert torch.equal(larger[0].encoder.lstm.weight_hh_l0, plain[0].lstm.weight_hh_l0)


def test_config_makes_the_same_model() -> None:
    model = TextClassifier(
        V, E, H, C, num_layers=2, bidirectional=True, dropout=0.1, padding_idx=None, batch_first=True, proj_size=4
    )
    again = TextClassifier(**model.config)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert again.config == model.config


def test_without_a_padding_idx_every_position_counts() -> None:
    model = TextClassifier(V, E, H, C, padding_idx=None)
    ids = torch.tensor([[1], [0], [0]])
    assert not torch.equal(model(ids), model(ids, [1]))
    assert torch.equal(model(ids), model(ids, [3]))


def test_an_id_of_padding_inside_a_text_counts() -> None:
    model = TextClassifier(V, E, H, C)
    inside = torch.tensor([[1], [0], [2], [0]])
    assert torch.equal(model(inside), model(inside, [3]))


def test_bad_input() -> None:
    model = TextClassifier(V, E, H, C)
    with pytest.raises(ValueError, match="ids: row 1 holds padding alone"):
        model(torch.tensor([[1, 0], [2, 0]]))
    with pytest.raises(IndexError, match=r"ids: token id 50 at \(1, 0\)"):
        model(torch.tensor([[1, 2], [50, 2]]))
    with pytest.raises(TypeError, match="ids: expected dtype"):
        model(torch.ones(2, 2))
    with pytest.raises(ValueError, match="lengths: got 1 lengths, expected 2"):
        model(torch.ones(2, 2, dtype=torch.int64), [1])
    with pytest.raises(ValueError, match="layout: got 'other'"):
        PlainTextClassifier(V, E, H, C, layout="other")  # type: ignore[arg-type]

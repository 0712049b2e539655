"""LanguageModel against the same in plain PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from textclf_fast.models import LanguageModel
from textclf_fast.models.sampled_softmax import Candidates

V, E, H, T, B = 50, 12, 16, 7, 3


def make(**options: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(V, E, H, **options).double()


def batch() -> torch.Tensor:
    return torch.randint(V, (T + 1, B), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}])
def test_loss_and_gradients(options: dict[str, Any]) -> None:
    model, ids = make(**options), batch()
    output, _ = model(ids[:-1])
    model.loss(output, ids[:-1], ids[1:]).backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()

    lstm = nn.LSTM(E, H, **options).double()
    lstm.load_state_dict(model.encoder.lstm.state_dict())
    weight = model.encoder.embedding.weight
    plain, _ = lstm(functional.embedding(ids[:-1], weight))
    torch.testing.assert_close(output, plain)
    losses = []
    for step in range(T):
        for row in range(B):
            guess = functional.linear(model.back[0](plain[step, row, :H]), weight, model.bias)
            losses.append(-guess.log_softmax(0)[ids[step + 1, row]])
            if "bidirectional" in options and step > 0:
                guess = functional.linear(model.back[1](plain[step, row, H:]), weight, model.bias)
                losses.append(-guess.log_softmax(0)[ids[step - 1, row]])
    torch.stack(losses).mean().backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("encoder.lstm."):
            torch.testing.assert_close(ours[name], parameter.grad)
    for name, parameter in lstm.named_parameters():
        torch.testing.assert_close(ours[f"encoder.lstm.{name}"], parameter.grad)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_direction_reads_what_it_guesses(bidirectional: bool) -> None:
    model, ids = make(bidirectional=bidirectional), batch()[:-1]
    for step in range(T):
        other = ids.clone()
        other[step] = (ids[step] + 1) % V
        forward, *backward = zip(model.scores(model(ids)[0]), model.scores(model(other)[0]), strict=True)
        # The score of word t is made at t - 1 forwards, at t + 1 backwards.
        torch.testing.assert_close(forward[0][:step], forward[1][:step])
        assert not torch.allclose(forward[0][step:], forward[1][step:])
        for ours, theirs in backward:
            torch.testing.assert_close(ours[step + 1 :], theirs[step + 1 :])
            assert not torch.allclose(ours[: step + 1], theirs[: step + 1])


def test_states_go_on() -> None:
    model, ids = make(num_layers=2).eval(), batch()
    whole, last = model(ids)
    first, states = model(ids[:4])
    second, states = model(ids[4:], states)
    torch.testing.assert_close(torch.cat((first, second)), whole)
    torch.testing.assert_close(states, last)


def test_candidates_that_are_all_words() -> None:
    model, ids = make(bidirectional=True), batch()
    output, _ = model(ids[:-1])
    exact = model.loss(output, ids[:-1], ids[1:])
    sampled = model.loss(output, ids[:-1], ids[1:], Candidates.draw(V, V, 1))
    torch.testing.assert_close(sampled, exact)


@pytest.mark.parametrize("name", ["dropout", "input_dropout", "embedding_dropout", "weight_dropout"])
def test_dropouts_are_for_training(name: str) -> None:
    model, ids = make(**{name: 0.5}), batch()
    torch.manual_seed(0)
    guesses = [model.scores(model(ids)[0])[0] for _ in range(2)]
    assert not torch.equal(*guesses)
    model.eval()
    torch.testing.assert_close(model.scores(model(ids)[0])[0], make().eval().scores(make().eval()(ids)[0])[0])


def test_dropout_has_one_mask_a_row() -> None:
    model = make(dropout=0.5)
    model.back[0] = nn.Identity()  # type: ignore[assignment]
    output = torch.ones(T, B, H, dtype=torch.float64)
    (dropped,) = model.vectors(output)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    assert not torch.equal(dropped[0, 0], dropped[0, 1])


def test_bidirectional_has_one_layer() -> None:
    with pytest.raises(ValueError, match="num_layers: expected 1 with bidirectional"):
        LanguageModel(V, E, H, num_layers=2, bidirectional=True)

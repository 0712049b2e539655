"""fuse and unfuse: the numbers stay, beside other parts of PyTorch, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fuse_cases import IDS, ROUTES, VOCAB, Tagger, assert_same_gradients, two
from fuse_cases import from_ids as from_ids
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from textclf_fast import fuse, unfuse
from textclf_fast.optim import DeferredAdam

# ---- Numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True, "batch_first": True}, {"num_layers": 2, "dropout": 0.4}], ids=str
)
@pytest.mark.parametrize("told", [False, True], ids=["", "told"])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.compat(
    "fuse", "a model's results and gradients are the same after fuse, whatever it does between its layers"
)
def test_results_and_gradients(route: str, told: bool, options: dict[str, Any], from_ids: list[Tensor]) -> None:
    plain, fused = two(route, **options)
    fuse(fused, pairs=[("embedding", "lstm")] if told else [])
    assert_same_gradients(fused, plain, IDS)
    assert len(from_ids) == (told and route in ("straight", "swapped", "residual"))
    plain.eval()
    fused.eval()
    for mode in (torch.no_grad, torch.inference_mode):
        from_ids.clear()
        with mode():
            for _ in range(3):  # without the table of projected tokens, and with it
                torch.testing.assert_close(fused(IDS), plain(IDS))
        assert len(from_ids) == (0 if route == "packed" else 3)


def test_a_frozen_embedding_is_left_out_of_training(from_ids: list[Tensor]) -> None:
    plain, fused = two()
    for model in (plain, fused):
        model.embedding.weight.requires_grad_(False)
    fuse(fused)
    assert_same_gradients(fused, plain, IDS)
    assert len(from_ids) == 1
    for model in (plain, fused):
        model.embedding.weight.requires_grad_(True)
    assert_same_gradients(fused, plain, IDS)
    assert len(from_ids) == 1


@pytest.mark.parametrize("told", [False, True], ids=["", "told"])
def test_what_is_kept_follows_the_weights(told: bool, from_ids: list[Tensor]) -> None:
    plain, fused = two()
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.1, fused=True) for m in (plain, fused)]
    fuse(fused, pairs=[("embedding", "lstm")] if told else [])
    for _ in range(3):
        assert_same_gradients(fused, plain, IDS)
        for optimizer in optimizers:
            optimizer.step()
        with torch.inference_mode():
            for _ in range(2):
                torch.testing.assert_close(fused(IDS), plain(IDS), rtol=1e-4, atol=1e-5)
    other = Tagger().state_dict()
    for model in (plain, fused):
        model.load_state_dict(other)
    with torch.no_grad():
        torch.testing.assert_close(fused(IDS), plain(IDS))
        torch.testing.assert_close(fused.double()(IDS), plain.double()(IDS))
    assert len(from_ids) == 8 + 3 * told


def test_sparse_gradients_and_deferred_rows(from_ids: list[Tensor]) -> None:
    plain, fused = two(sparse=True)
    fuse(fused, pairs=[("embedding", "lstm")])
    optimizers = [DeferredAdam(m.parameters(), m, lr=0.1) for m in (plain, fused)]
    for step in range(4):
        ids = (IDS * (step + 1)) % (VOCAB - 4 * step)
        assert_same_gradients(fused, plain, ids)
        assert fused.embedding.weight.grad.is_sparse  # type: ignore[union-attr]
        for optimizer in optimizers:
            optimizer.step()
    assert len(from_ids) == 4
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(fused(IDS), plain(IDS), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fused.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)


# ---- Beside other parts of PyTorch ---------------------------------------------------------------


def test_parametrized_after_fuse() -> None:
    plain, fused = two()
    report = fuse(fused, pairs=[("embedding", "lstm")])
    for model in (plain, fused):
        torch.manual_seed(1)
        parametrizations.weight_norm(model.lstm, "weight_hh_l0")
    assert fuse(fused) == report
    assert_same_gradients(fused, plain, IDS)
    with torch.no_grad():
        torch.testing.assert_close(fused(IDS), plain(IDS))
    with pytest.raises(ValueError, match="model: lstm is a ParametrizedPairedLSTM now"):
        unfuse(fused)
    nn.utils.parametrize.remove_parametrizations(fused.lstm, "weight_hh_l0")
    unfuse(fused)
    assert type(fused.lstm) is nn.LSTM


def test_functional_calls_and_transforms() -> None:
    plain, fused = two()
    fuse(fused, pairs=[("embedding", "lstm")])
    weights = {name: p.detach() * 1.5 for name, p in plain.named_parameters()}
    with torch.no_grad():
        for _ in range(3):
            fused(IDS)
        want = torch.func.functional_call(plain, weights, IDS)
        torch.testing.assert_close(torch.func.functional_call(fused, weights, IDS), want)
        torch.testing.assert_close(fused(IDS), plain(IDS))
    found = [
        torch.func.grad(lambda w, model=model: torch.func.functional_call(model, w, IDS).sum())(weights)
        for model in (plain, fused)
    ]
    torch.testing.assert_close(found[1], found[0])


def test_autocast_and_tracing() -> None:
    plain, fused = two()
    fuse(fused)
    with torch.no_grad():
        want = plain(IDS)  # under autocast oneDNN refuses these sizes on some machines
        with torch.autocast("cpu"):
            torch.testing.assert_close(fused(IDS).float(), want, rtol=2e-2, atol=2e-2)
        traced = torch.jit.trace(fused.eval(), IDS)
        torch.testing.assert_close(traced(IDS.flip(0)), plain.eval()(IDS.flip(0)))

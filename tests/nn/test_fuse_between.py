"""fuse: the tensor between the embedding and the LSTM is an ordinary one, whatever is done to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fuse_cases import DIM, IDS, assert_same_gradients, two
from fuse_cases import from_ids as from_ids
from torch import Tensor, nn

from textclf_fast import fuse


def _double(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids).mul_(2)


def _first_two_rows(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids)[:, :2]


def _reversed(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids).flip(0)


def _part_overwritten(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    embedded = embedding(ids)
    embedded[2] = 0.5
    return embedded


def _written_through_a_view(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    embedded = embedding(ids)
    embedded.transpose(0, 1)[1].zero_()
    return embedded


def _weight_overwritten(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    embedded = embedding(ids)
    with torch.no_grad():
        embedding.weight.mul_(3)
    return embedded


def _detached(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids).detach()


def _made_without_graph(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return embedding(ids)


def _view_without_graph(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    embedded = embedding(ids)
    with torch.no_grad():
        return embedded.transpose(0, 1)


def _reinterpreted(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids).view(4, 6, DIM)


def _as_one_row(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids[:, 0])


def _of_inference_mode(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        embedded = embedding(ids)
        embedded *= 2
    return embedded.clone()


@pytest.mark.parametrize(
    "make",
    [
        _double,
        _first_two_rows,
        _reversed,
        _part_overwritten,
        _written_through_a_view,
        _weight_overwritten,
        _detached,
        _made_without_graph,
        _view_without_graph,
        _reinterpreted,
        _as_one_row,
        _of_inference_mode,
    ],
)
@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_what_was_done_to_the_embedded_tensor_counts(
    make: Callable[[nn.Embedding, Tensor], Tensor], grad: bool
) -> None:
    results = []
    plain, fused = two()
    fuse(fused, pairs=[("embedding", "lstm")])
    for model in (plain, fused):
        with torch.set_grad_enabled(grad):
            output, (h_n, c_n) = model.lstm(make(model.embedding, IDS))
            if grad:
                (output.sum() + h_n.square().sum() + c_n.sum()).backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        results.append((output, h_n, c_n, grads))
    torch.testing.assert_close(results[1], results[0])


def test_ids_that_change_after_their_lookup() -> None:
    plain, fused = two()
    fuse(fused)
    ids = IDS.clone()
    with torch.no_grad():
        want, _ = plain.lstm(plain.embedding(ids))
        embedded = fused.embedding(ids)
        ids.numpy()[:] = 1
        torch.testing.assert_close(fused.lstm(embedded)[0], want)


def test_changes_in_inference_mode_are_noticed() -> None:
    plain, fused = two()
    fuse(fused)
    with torch.inference_mode():
        for change in (lambda e: e.mul_(2), lambda e: e.transpose(0, 1)[0].zero_(), lambda e: e):
            results = []
            for model in (plain, fused):
                embedded = model.embedding(IDS)
                change(embedded)
                results.append(model.lstm(embedded)[0])
            torch.testing.assert_close(results[1], results[0])


def test_its_gradient_can_be_asked_for(from_ids: list[Tensor]) -> None:
    plain, fused = two("residual")
    fuse(fused)
    found = []
    for model in (plain, fused):
        embedded = model.embedding(IDS)
        output, _ = model.lstm(embedded)
        found.append(torch.autograd.grad(output.sum() + embedded.square().sum(), [embedded, model.embedding.weight]))
    torch.testing.assert_close(found[1], found[0])
    assert not from_ids


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("watch", ["hook", "retain_grad"])
def test_whoever_watches_its_gradient_gets_it(watch: str, swapped: bool, from_ids: list[Tensor]) -> None:
    plain, fused = two()
    fuse(fused, pairs=[("embedding", "lstm")])
    found: list[Tensor] = []
    for model in (plain, fused):
        embedded = model.embedding(IDS)
        if watch == "hook":
            embedded.register_hook(found.append)
        else:
            embedded.retain_grad()
        model.lstm(embedded.transpose(0, 1) if swapped else embedded)[0].sum().backward()
        if watch == "retain_grad":
            found.append(embedded.grad)  # type: ignore[arg-type]
    torch.testing.assert_close(found[1], found[0])
    assert not from_ids


@pytest.mark.parametrize("where", ["embedding", "lstm"])
@pytest.mark.parametrize(
    "register",
    [
        "register_forward_pre_hook",
        "register_forward_hook",
        "register_full_backward_pre_hook",
        "register_full_backward_hook",
    ],
)
@pytest.mark.compat("fuse", "hooks stay, and are called once a call with what they were called with")
def test_hooks_stay_and_see_the_same(where: str, register: str) -> None:
    plain, fused = two()
    seen: list[list[Any]] = [[], []]
    for model, calls in ((plain, seen[0]), (fused, seen[1])):
        # (The first argument is the module.)
        getattr(model.get_submodule(where), register)(lambda _, *args, calls=calls: calls.append(args))
    fuse(fused, pairs=[("embedding", "lstm")])
    assert_same_gradients(fused, plain, IDS)
    with torch.no_grad():
        fused(IDS)
        plain(IDS)
    assert len(seen[0]) in (1, 2)
    torch.testing.assert_close(seen[1], seen[0])


def test_a_hook_may_replace_the_embedded_tensor() -> None:
    plain, fused = two()
    for model in (plain, fused):
        model.embedding.register_forward_hook(lambda of, args, output: output * 2 if of.training else output[:3])
    fuse(fused, pairs=[("embedding", "lstm")])
    for training in (True, False):
        assert_same_gradients(fused.train(training), plain.train(training), IDS)

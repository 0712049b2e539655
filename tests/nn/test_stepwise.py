"""recurrent_dropout, zoneout and layer_norm: options whose steps are not the kernels'."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cell_loop import Changes, run_loop
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM

LENGTHS = [3, 6, 1, 4]
SHAPES: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"bias": False},
    {"proj_size": 2, "bidirectional": True, "num_layers": 2},
]
CHANGES = [{"layer_norm": True}, {"zoneout": (0.2, 0.3)}, {"recurrent_dropout": 0.5}]


def _module(**options: Any) -> FusedLSTM:
    module = FusedLSTM(3, 5, **options, dtype=torch.float64)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if name.startswith(("norm", "h_0", "c_0")):
                p.add_(torch.randn_like(p) * 0.3)
    return module


def _flat(result: tuple[Any, ...]) -> list[Tensor]:
    output, states, cells = result
    return [output, *states, cells]


def _compare(got: tuple[Any, ...], want: tuple[Any, ...], leaves: list[Tensor]) -> None:
    grads = [torch.randn_like(t) for t in _flat(want)]
    for a, b in zip(_flat(got), _flat(want), strict=True):
        torch.testing.assert_close(a, b)
    found = torch.autograd.grad(_flat(got), leaves, grads, allow_unused=True)
    for a, b in zip(found, torch.autograd.grad(_flat(want), leaves, grads, allow_unused=True), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_loop_is_nn_lstm(shape: dict[str, Any]) -> None:
    """The measure itself."""
    plain = nn.LSTM(3, 5, **shape, dtype=torch.float64)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    output, states, _ = run_loop(plain, x, LENGTHS)
    packed, want = plain(pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False))
    torch.testing.assert_close(output, pad_packed_sequence(packed)[0])
    for a, b in zip(states, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.compat("options", "layer_norm=True: normalised gates and cells", nn_lstm="no")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_layer_norm(shape: dict[str, Any], training: bool) -> None:
    module = _module(layer_norm=True, **shape).train(training)
    x = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    leaves = [x, *module.parameters()]
    want = run_loop(module, x, LENGTHS, changes=Changes(norms=True))
    _compare(module(x, lengths=LENGTHS, return_cell_states=True), want, leaves)


@pytest.mark.compat("options", "zoneout=p or (p_h, p_c), its expectation in evaluation", nn_lstm="no")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rates", [0.25, (0.3, 0.0), (0.0, 0.4), (0.2, 0.3), (1.0, 1.0)], ids=str)
def test_zoneout_in_evaluation(shape: dict[str, Any], rates: Any) -> None:
    module = _module(zoneout=rates, **shape).eval()
    p_h, p_c = rates if isinstance(rates, tuple) else (rates, rates)
    changes = Changes(
        mix_h=lambda *place_and_values: p_h * place_and_values[-2] + (1 - p_h) * place_and_values[-1],
        mix_c=lambda *place_and_values: p_c * place_and_values[-2] + (1 - p_c) * place_and_values[-1],
    )
    x = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    want = run_loop(module, x, LENGTHS, changes=changes)
    _compare(module(x, lengths=LENGTHS, return_cell_states=True), want, [x, *module.parameters()])


@pytest.mark.parametrize("rates", [(0.3, 0.0), (0.0, 0.4), (0.2, 0.3)], ids=str)
def test_zoneout_in_training(rates: tuple[float, float]) -> None:
    """What was kept is seen in the results; a loop that keeps the same has the same results."""
    module = _module(zoneout=rates, bidirectional=True)
    x = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    hx = torch.randn(2, 4, 5, dtype=torch.float64), torch.randn(2, 4, 5, dtype=torch.float64)
    got = module(x, hx, lengths=LENGTHS, return_cell_states=True)

    def keeps(padded: Tensor, state: Tensor) -> Any:
        def mix(layer: int, direction: int, row: int, t: int, old: Tensor, new: Tensor) -> Tensor:
            own = padded[:, row, direction * 5 : direction * 5 + 5]
            first = t == 0 if direction == 0 else t == LENGTHS[row] - 1
            before = state[direction, row] if first else own[t - 1 if direction == 0 else t + 1]
            return torch.where(own[t].detach() == before.detach(), old, new)

        return mix

    changes = Changes(mix_h=keeps(got[0], hx[0]), mix_c=keeps(got[2], hx[1]))
    want = run_loop(module, x, LENGTHS, hx, changes)
    _compare(got, want, [x, *module.parameters()])


def test_statistics_of_zoneout() -> None:
    module = FusedLSTM(3, 400, zoneout=(0.2, 0.35))
    output, _, cells = module(torch.randn(12, 8, 3), return_cell_states=True)
    for states, rate in ((output, 0.2), (cells, 0.35)):
        kept = (states[1:] == states[:-1]).double()
        assert abs(kept.mean() - rate) < 5 * (rate * (1 - rate) / kept.numel()) ** 0.5
        assert not torch.equal(kept[0], kept[1])


@pytest.mark.compat("options", "recurrent_dropout=p: of the candidate, a new mask at every step", nn_lstm="no")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_recurrent_dropout(shape: dict[str, Any]) -> None:
    module = _module(recurrent_dropout=0.4, **shape)
    x = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    order = sorted(range(4), key=lambda row: -LENGTHS[row])
    masks: dict[tuple[int, int, int, int], Tensor] = {}
    torch.manual_seed(11)
    for layer in range(module.num_layers):
        for d in range(1 + module.bidirectional):
            for t in range(6) if d == 0 else reversed(range(6)):
                alive = [row for row in order if LENGTHS[row] > t]
                mask = functional.dropout(torch.ones(len(alive), 5, dtype=torch.float64), 0.4)
                masks |= {(layer, d, row, t): mask[i] for i, row in enumerate(alive)}
    want = run_loop(module, x, LENGTHS, changes=Changes(candidate=lambda *place: place[-1] * masks[place[:-1]]))
    torch.manual_seed(11)
    _compare(module(x, lengths=LENGTHS, return_cell_states=True), want, [x, *module.parameters()])


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_gradcheck_and_gradgradcheck(change: dict[str, Any], training: bool) -> None:
    module = _module(num_layers=2, bidirectional=True, learn_initial_state=True, **change).train(training)
    names = [name for name, _ in module.named_parameters()]
    x = torch.randn(3, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(3)
        given = dict(zip(names, weights, strict=True))
        arguments = {"lengths": [2, 3, 1], "return_cell_states": True}
        output, states, cells = torch.func.functional_call(module, given, (x,), arguments)
        return output, *states, cells

    assert torch.autograd.gradcheck(run, (x, *module.parameters()), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x, *module.parameters()), fast_mode=True)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_forms_of_a_batch_and_token_ids(change: dict[str, Any]) -> None:
    module = FusedEmbeddingLSTM(9, 3, 5, num_layers=2, bidirectional=True, batch_first=True, **change)
    ids = torch.randint(0, 9, (4, 6))
    x = module.embedding(ids)
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)

    def seeded(run: Any) -> Any:
        torch.manual_seed(2)
        return run()

    want, (h_n, c_n) = seeded(lambda: module.lstm(x, lengths=LENGTHS))
    output, states = seeded(lambda: module.lstm(packed))
    torch.testing.assert_close(pad_packed_sequence(output, batch_first=True)[0], want)
    torch.testing.assert_close(states, (h_n, c_n))
    torch.testing.assert_close(seeded(lambda: module(ids, LENGTHS)), (want, (h_n, c_n)))
    dense = seeded(lambda: module.lstm(x))
    assert dense[0].shape == (4, 6, 10)
    one = seeded(lambda: module(ids[1]))
    assert one[0].shape == (6, 10)
    assert one[1][0].shape == (4, 5)
    torch.testing.assert_close(module.eval()(ids[1])[0], module(ids)[0][1])
    with torch.no_grad():
        module.prepare_inference()
        torch.testing.assert_close(module(ids[1])[0], module(ids)[0][1])


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_option_at_once_and_other_dtypes(change: dict[str, Any]) -> None:
    options = {"weight_dropout": 0.5, "variational_dropout": 0.3, "dropout": 0.2} | change
    module = FusedLSTM(3, 5, num_layers=2, bidirectional=True, **options)
    x = torch.randn(6, 4, 3)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        output, states = module.to(dtype)(x.to(dtype), lengths=LENGTHS)
        assert output.dtype == states[0].dtype == dtype
        assert output.isfinite().all()
        output.float().sum().backward()
    evaluated = module.eval().float()(x)[0]
    assert torch.equal(evaluated, module(x)[0])


@pytest.mark.parametrize("change", CHANGES[:2], ids=str)
def test_per_sample_gradients(change: dict[str, Any]) -> None:
    """PyTorch's own steps go through torch.func."""
    module = _module(**change).eval()
    weights = {name: p.detach() for name, p in module.named_parameters()}
    x = torch.randn(5, 2, 3, dtype=torch.float64)

    def loss(w: dict[str, Tensor], row: Tensor) -> Tensor:
        return torch.func.functional_call(module, w, (row,))[0].square().sum()

    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(weights, x)
    for row in range(2):
        module.zero_grad()
        module(x[:, row])[0].square().sum().backward()
        for name, p in module.named_parameters():
            torch.testing.assert_close(got[name][row], p.grad)

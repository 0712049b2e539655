"""FusedLSTM against nn.LSTM in float64: outputs and all gradients, on every instruction set."""

from __future__ import annotations

import os

import pytest
import torch
from lstm_cases import Case, ErrorComparison, Forward, Problem, TypicalError, option_cases, size_cases
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from textclf_fast import FusedLSTM

pytestmark = pytest.mark.usefixtures("_poisoned")


def _fused(case: Case) -> FusedLSTM:
    return FusedLSTM(case.input_size, case.hidden_size, **case.options())


def _with_lengths(module: FusedLSTM) -> Forward:
    return lambda x, states, lengths: module(x, states, lengths=lengths)


def _with_packed_sequence(module: FusedLSTM) -> Forward:
    def forward(x, states, lengths):  # type: ignore[no-untyped-def]
        packed = pack_padded_sequence(x, lengths, batch_first=module.batch_first, enforce_sorted=False)
        output, final = module(packed, states)
        steps = x.size(1 if module.batch_first else 0)
        return pad_packed_sequence(output, batch_first=module.batch_first, total_length=steps)[0], final

    return forward


# In a tensor of a few numbers nn.LSTM's own error may happen to be next to nothing: four units in the last place,
# relative to the tensor's magnitude, are always allowed.  test_error_over_all_sizes compares without that.
CHANCE = 4 * torch.finfo(torch.float32).eps
DRAWS = 3


@pytest.mark.parametrize("case", list(size_cases()), ids=str)
def test_sizes(isa: str, case: Case) -> None:
    module = _fused(case)
    comparison = ErrorComparison()
    for _ in range(DRAWS):
        problem = Problem.make(case)
        exact = problem.reference(torch.float64)
        ours = problem.run(module, _with_lengths(module), torch.float32)
        comparison.add(ours, problem.reference(torch.float32), exact)
    comparison.check(CHANCE)
    ours = problem.run(module, _with_lengths(module), torch.float64)
    for name, want in exact.items():
        torch.testing.assert_close(ours[name], want, rtol=1e-11, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("case", list(option_cases()), ids=str)
def test_options(case: Case) -> None:
    problem = Problem.make(case)
    exact = problem.reference(torch.float64)
    module = _fused(case)
    forwards = [_with_lengths(module)]
    if case.lengths != "none":
        forwards.append(_with_packed_sequence(module))
    for forward in forwards:
        ours = problem.run(module, forward, torch.float64)
        for name, want in exact.items():
            torch.testing.assert_close(ours[name], want, rtol=1e-11, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_error_over_all_sizes(isa: str) -> None:
    """Over the whole grid: no allowance for chance."""
    typical = TypicalError()
    for case in size_cases():
        problem, module = Problem.make(case), _fused(case)
        ours = problem.run(module, _with_lengths(module), torch.float32)
        typical.add(ours, problem.reference(torch.float32), problem.reference(torch.float64))
    typical.check()


def test_bfloat16_error_over_all_sizes(isa: str) -> None:
    """Beside nn.LSTM in bfloat16, and in each case within four units in the last place of that."""
    whole = TypicalError()
    for case in size_cases():
        problem, module = Problem.make(case).rounded_to(torch.bfloat16), _fused(case)
        ours = problem.run(module, _with_lengths(module), torch.bfloat16)
        peer, exact = problem.reference(torch.bfloat16), problem.reference(torch.float64)
        whole.add(ours, peer, exact)
        one = ErrorComparison()
        one.add(ours, peer, exact)
        one.check(4 * torch.finfo(torch.bfloat16).eps)
    whole.check()


def test_inference_is_training_without_saving(isa: str) -> None:
    module = FusedLSTM(20, 33, num_layers=2, bidirectional=True)
    x, lengths = torch.randn(9, 6, 20), torch.tensor([3, 9, 1, 4, 9, 2])
    trained, (h, c) = module(x, lengths=lengths)
    with torch.no_grad():
        inferred, (h2, c2) = module(x, lengths=lengths)
    assert torch.equal(trained, inferred)
    assert torch.equal(h, h2)
    assert torch.equal(c, c2)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_same_bits_whatever_the_threads(isa: str, threads: int) -> None:
    module = FusedLSTM(64, 130, bidirectional=True)
    x, lengths = torch.randn(40, 19, 64), torch.randint(1, 41, (19,))

    def run() -> list[torch.Tensor]:
        module.zero_grad()
        inputs = x.clone().requires_grad_()
        output, (h, c) = module(inputs, lengths=lengths)
        (output.sum() + h.square().sum() + c.sum()).backward()
        return [output, h, c, inputs.grad, module.weight_hh_l0.grad]

    before = torch.get_num_threads()
    first = run()
    try:
        torch.set_num_threads(threads)
        again = run()
    finally:
        torch.set_num_threads(before)
    # The recurrence of a row does not depend on which thread runs it; GEMMs of PyTorch may split sums by threads.
    for a, b in zip(first[:3], again[:3], strict=True):
        assert torch.equal(a, b)
    for a, b in zip(first[3:], again[3:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_threads_that_come_late(isa: str, rows: int) -> None:
    """Two threads on one core: each finds the other away, and takes its part of a step."""
    module = FusedLSTM(20, 150).eval()
    x = torch.randn(300, rows, 20)
    with torch.no_grad():
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        first, _ = module(x)  # here, so that the second thread is among the tasks
        tasks = [int(task) for task in os.listdir("/proc/self/task")]
        before = {task: os.sched_getaffinity(task) for task in tasks}
        try:
            for task in tasks:
                os.sched_setaffinity(task, {min(before[task])})
            for _ in range(10):
                assert torch.equal(first, module(x)[0])
        finally:
            torch.set_num_threads(threads)
            for task, cores in before.items():
                os.sched_setaffinity(task, cores)


def test_same_bits_run_after_run() -> None:
    module = FusedLSTM(64, 130)
    x = torch.randn(30, 17, 64)
    results = set()
    for _ in range(50):
        module.zero_grad()
        output, _ = module(x)
        output.square().sum().backward()
        results.add(bytes(output.detach().numpy().tobytes() + module.weight_hh_l0.grad.numpy().tobytes()))
    assert len(results) == 1


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}], ids=str)
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("lengths", [None, [3, 1, 4]])
def test_gradcheck(isa: str, options: dict[str, object], states: bool, lengths: list[int] | None) -> None:
    module = FusedLSTM(3, 5, **options, dtype=torch.float64)
    x = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)
    layers = module.num_layers * (1 + module.bidirectional)
    hx = [torch.randn(layers, 3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)] if states else []
    names = [name for name, _ in module.named_parameters()]

    def run(x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights = dict(zip(names, rest[len(hx) :], strict=True))
        args = (x, tuple(rest[:2])) if hx else (x,)
        output, (h, c) = torch.func.functional_call(module, weights, args, {"lengths": lengths})
        return output, h, c

    assert torch.autograd.gradcheck(run, (x, *hx, *module.parameters()))


def test_only_some_outputs_have_gradients() -> None:
    """An output that the loss leaves out has no gradient at all: the kernels get none, not zeros."""
    for picked in range(3):
        plain, fused = nn.LSTM(4, 9, dtype=torch.float64), FusedLSTM(4, 9, dtype=torch.float64)
        fused.load_state_dict(plain.state_dict())
        x = torch.randn(5, 3, 4, dtype=torch.float64)
        for module in (plain, fused):
            output, (h, c) = module(x)
            (output, h, c)[picked].square().sum().backward()
        for p, q in zip(plain.parameters(), fused.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)


def test_frozen_recurrent_weights_get_no_gradient() -> None:
    module = FusedLSTM(4, 9)
    module.weight_hh_l0.requires_grad_(False)
    x = torch.randn(5, 3, 4, requires_grad=True)
    module(x)[0].sum().backward()
    assert module.weight_hh_l0.grad is None
    assert x.grad is not None
    assert module.weight_ih_l0.grad is not None


def test_saturated_gates_are_finite() -> None:
    plain, fused = nn.LSTM(2, 3), FusedLSTM(2, 3)
    fused.load_state_dict(plain.state_dict())
    for scale in (1e2, 1e4, 1e30, float("inf")):
        x = torch.tensor([[[1.0, -1.0]], [[-1.0, 1.0]]]) * scale
        torch.testing.assert_close(fused(x)[0], plain(x)[0], equal_nan=True)
    x = torch.full((2, 1, 2), 1e4, requires_grad=True)
    fused(x)[0].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_nan_stays_in_its_row_and_after_its_step(isa: str) -> None:
    module = FusedLSTM(3, 20)
    x = torch.randn(6, 4, 3)
    x[2, 1, 0] = float("nan")
    output, _ = module(x)
    assert output[2:, 1].isnan().all()
    assert output[:2].isfinite().all()
    assert output[:, [0, 2, 3]].isfinite().all()


def test_padding_never_reaches_a_result() -> None:
    module = FusedLSTM(3, 8)
    lengths = torch.tensor([2, 5, 3])
    x = torch.randn(5, 3, 3)
    clean, (h, _) = module(x, lengths=lengths)
    for row, length in enumerate(lengths):
        x[length:, row] = float("nan")
    x.requires_grad_()
    output, (h2, _) = module(x, lengths=lengths)
    assert torch.equal(clean, output)
    assert torch.equal(h, h2)
    output.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_few_rows_are_shared_by_units(isa: str, rows: int) -> None:
    """Long enough that a second thread is worth waking: both work on every step, each on a part of the units."""
    case = Case(input_size=20, hidden_size=150, rows=rows, steps=60, bidirectional=False, states=True, lengths="sorted")
    problem, module = Problem.make(case), _fused(case)
    exact = problem.reference(torch.float64)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            ours = problem.run(module, _with_lengths(module), torch.float64)
            for name, want in exact.items():
                torch.testing.assert_close(ours[name], want, rtol=1e-11, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
            results.append(ours)
    finally:
        torch.set_num_threads(before)
    for name in ("output", "h_n", "c_n"):
        assert all(torch.equal(results[0][name], other[name]) for other in results[1:])

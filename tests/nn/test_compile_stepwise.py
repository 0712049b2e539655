"""zoneout, layer_norm and recurrent_dropout in compiled and exported graphs: one op, equal to eager steps."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.export import Dim

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM

V, E, H = 20, 4, 6
ALL: dict[str, Any] = {"layer_norm": True, "zoneout": (0.2, 0.3), "recurrent_dropout": 0.4}
CASES: list[dict[str, Any]] = [
    {"layer_norm": True, "bias": False},
    {"zoneout": (0.2, 0.3), "proj_size": 2},
    {"recurrent_dropout": 0.4, "bidirectional": True},
    {**ALL, "num_layers": 2, "bidirectional": True, "weight_dropout": 0.3, "learn_initial_state": True},
]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _batch(steps: int, rows: int, dynamic: bool = False) -> tuple[Tensor, Tensor]:
    x, lengths = torch.randn(steps, rows, E), torch.randint(1, steps + 1, (rows,))
    if dynamic:
        torch._dynamo.mark_dynamic(x, (0, 1))
        torch._dynamo.mark_dynamic(lengths, 0)
    return x, lengths


def _results(run: Any, module: nn.Module, grad: bool, *args: Any, **kwargs: Any) -> list[Tensor]:
    """Outputs, what is drawn next, and gradients."""
    torch.manual_seed(3)
    output, states = run(*args, **kwargs)
    results = [output, *states]
    drawn = torch.rand(3)
    if not grad:
        return [*results, drawn]
    loss = sum((t.sin().sum() for t in results), torch.zeros(()))
    return [*results, drawn, *torch.autograd.grad(loss, list(module.parameters()))]


@pytest.mark.parametrize(("training", "grad"), [(True, True), (False, False)])
@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.compat(
    "torch.compile", "zoneout, layer_norm and recurrent_dropout: one graph for all sizes, eager's masks", nn_lstm="no"
)
def test_one_graph_for_all_sizes(options: dict[str, Any], training: bool, grad: bool) -> None:
    module = FusedLSTM(E, H, **options).train(training)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    with torch.set_grad_enabled(grad):
        for i, (steps, rows) in enumerate([(7, 5), (3, 4), (9, 2)]):
            x, lengths = _batch(steps, rows, dynamic=i == 0)
            given, wanted = (_results(m, module, grad, x, lengths=lengths) for m in (compiled, module))
            torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 1


def test_token_ids_without_lengths() -> None:
    module = FusedEmbeddingLSTM(V, E, H, **ALL)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for steps, rows in [(7, 5), (3, 4)]:
        ids = torch.randint(V, (steps, rows))
        given, wanted = (_results(m, module, True, ids) for m in (compiled, module))
        torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-6)


def test_two_calls_draw_twice() -> None:
    module = FusedLSTM(E, H, recurrent_dropout=0.5)
    x = torch.randn(5, 3, E)
    compiled = torch.compile(lambda x: (module(x)[0], module(x)[0]), fullgraph=True, backend="aot_eager")
    one, other = compiled(x)
    assert not torch.equal(one, other)


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
def test_inductor_trains() -> None:
    module = FusedLSTM(E, H, **ALL)
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    x, lengths = _batch(7, 5)
    given, wanted = (_results(m, module, True, x, lengths=lengths) for m in (compiled, module))
    torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unused", [(), (0, 2, 3)])
def test_the_backward_in_float64(unused: tuple[int, ...]) -> None:
    """Gradients of some outputs alone, and of the inputs."""
    module = FusedLSTM(E, H, **ALL, dtype=torch.float64)
    x = torch.randn(5, 3, E, dtype=torch.float64, requires_grad=True)
    hx = [torch.randn(1, 3, H, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def run(x: Tensor, h_0: Tensor, c_0: Tensor) -> list[Tensor]:
        output, states, cells = module(x, (h_0, c_0), lengths=torch.tensor([5, 2, 4]), return_cell_states=True)
        return [t for i, t in enumerate((output, *states, cells)) if i not in unused]

    found = []
    for call in (torch.compile(run, fullgraph=True, backend="aot_eager"), run):
        torch.manual_seed(3)
        loss = sum(t.sin().sum() for t in call(x, *hx))
        found.append(torch.autograd.grad(loss, [x, *hx, *module.parameters()]))
    torch.testing.assert_close(*found)


def test_the_op() -> None:
    """In evaluation: what is drawn is not twice the same."""
    rows, sizes = torch.randn(7, E, requires_grad=True), torch.tensor([3, 2, 2])
    weights = [torch.randn(4 * H, E), torch.randn(4 * H, H), torch.randn(4 * H)]
    states = [torch.randn(1, 3, H, requires_grad=True) for _ in range(2)]
    arguments = (rows, None, sizes, [w.requires_grad_() for w in weights], *states)
    how = ([True, False, False], [0.0, 0.2, 0.3], False, 0)
    torch.library.opcheck(torch.ops.textclf_fast.lstm_stepwise.default, (*arguments, *how))


def test_exported() -> None:
    """A program with this op needs the package where it runs."""
    module, file = FusedLSTM(E, H, layer_norm=True, zoneout=0.1).eval(), io.BytesIO()
    x, lengths = _batch(7, 5)
    sizes = {"input": {0: Dim("T"), 1: Dim("B")}, "lengths": {0: Dim("B")}}
    with torch.no_grad():
        inputs = {"input": x, "lengths": lengths}
        torch.export.save(torch.export.export(module, (), inputs, dynamic_shapes=sizes), file)
        file.seek(0)
        program = torch.export.load(file).module()
        for steps, rows in [(7, 5), (12, 3)]:
            x, lengths = _batch(steps, rows)
            torch.testing.assert_close(program(input=x, lengths=lengths), module(x, lengths=lengths))

"""torch.compile with default settings: fullgraph, any B and T, equal to eager."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from frozen_cases import Calls
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils.rnn import pack_padded_sequence

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, TextClassifier

V, E, H = 50, 4, 6
needs_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


class Tagger(nn.Module):
    """A model of a user's own."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lstm = FusedLSTM(E, H, **options)
        self.fc = nn.Linear(H * (2 if self.lstm.bidirectional else 1), 3)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        states = None
        if isinstance(self.lstm, nn.LSTM):
            zeros = x.new_zeros(self.lstm.num_layers * (2 if self.lstm.bidirectional else 1), x.size(1), H)
            states = zeros, zeros + 0.5
        output, (h_n, _) = self.lstm(x, states, lengths=lengths)
        return self.fc(output).tanh(), h_n


class Alone(FusedLSTM):
    """The LSTM itself, with lengths in the second place."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Any:
        return super().forward(x, None, lengths)


MODELS = {
    "tagger": lambda: Tagger(num_layers=2, bidirectional=True),
    "lstm": lambda: Alone(E, H, bias=False),
    "lstm, projected": lambda: Alone(E, H, num_layers=2, bidirectional=True, proj_size=3),
    "embedding": lambda: FusedEmbeddingLSTM(V, E, H, padding_idx=0),
    "classifier": lambda: TextClassifier(V, E, H, 2),
    "classifier, deep": lambda: TextClassifier(V, E, H, 2, num_layers=2, bidirectional=True),
}


def _batch(model: nn.Module, steps: int, rows: int, with_lengths: bool, dynamic: bool = False) -> list[Tensor]:
    takes_ids = isinstance(model, FusedEmbeddingLSTM | TextClassifier)
    lengths = torch.randint(1, steps + 1, (rows,))
    x = torch.randint(1, V, (steps, rows)) if takes_ids else torch.randn(steps, rows, E)
    if takes_ids:
        x[torch.arange(steps).unsqueeze(1) >= lengths] = 0
    if dynamic:
        torch._dynamo.mark_dynamic(x, (0, 1))
        torch._dynamo.mark_dynamic(lengths, 0)
    return [x, lengths] if with_lengths else [x]


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for v in value for t in _tensors(v)]


def _gradients(model: nn.Module, outputs: Any) -> list[Tensor]:
    loss = sum(t.sin().sum() for t in _tensors(outputs))
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize(
    ("name", "grad", "with_lengths"),
    [
        ("tagger", True, True),
        ("tagger", False, True),
        ("lstm", True, False),
        ("lstm", False, True),
        ("lstm, projected", True, True),
        ("lstm, projected", False, True),
        ("embedding", True, False),
        ("embedding", False, True),
        ("embedding", False, False),
        ("classifier, deep", True, True),
        ("classifier", False, True),
    ],
)
@pytest.mark.compat(
    "torch.compile", "fullgraph=True with default settings, any B and T in one graph", nn_lstm="refused by Dynamo"
)
def test_one_graph_for_all_sizes(name: str, grad: bool, with_lengths: bool) -> None:
    model = MODELS[name]()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with torch.set_grad_enabled(grad):
        for i, (steps, rows) in enumerate([(7, 5), (3, 4), (9, 2)]):
            batch = _batch(model, steps, rows, with_lengths, dynamic=i == 0)
            given, wanted = compiled(*batch), model(*batch)
            torch.testing.assert_close(given, wanted, rtol=1e-6, atol=1e-6)
            if grad:
                torch.testing.assert_close(_gradients(model, given), _gradients(model, wanted), rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 1


def test_sizes_become_dynamic_by_themselves() -> None:
    model = TextClassifier(V, E, H, 2)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for steps, rows in [(7, 5), (3, 4), (9, 2), (12, 3), (4, 6)]:
        batch = _batch(model, steps, rows, True)
        torch.testing.assert_close(compiled(*batch), model(*batch))
    assert counter.frame_count == 2


def test_dropout_between_layers() -> None:
    model = Tagger(num_layers=2, dropout=0.5)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    batch = _batch(model, 7, 5, True)
    assert not torch.equal(compiled(*batch)[0], compiled(*batch)[0])


@needs_compiler
def test_inductor_trains() -> None:
    model = TextClassifier(V, E, H, 2)
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for steps, rows in [(7, 5), (4, 3)]:
        batch = _batch(model, steps, rows, True)
        given, wanted = compiled(*batch), model(*batch)
        torch.testing.assert_close(given, wanted)
        torch.testing.assert_close(_gradients(model, given), _gradients(model, wanted))


def test_a_compiled_step_drops_what_is_kept(calls: Calls) -> None:
    model = FusedEmbeddingLSTM(V, E, H)
    model.prepare_inference()
    ids = torch.randint(V, (7, 5))
    torch.compile(model, fullgraph=True, backend="aot_eager")(ids)
    assert model.projected_table.frozen._layer.is_empty


# ---- Inference with what is kept -------------------------------------------------------------------


def _prepared(weights: Any = None) -> tuple[TextClassifier, Any, Tensor]:
    model = TextClassifier(V, E, H, 2).eval()
    model.prepare_inference(weights)
    return model, torch.compile(model, fullgraph=True, backend="aot_eager"), torch.randint(1, V, (7, 5))


def test_inference_uses_the_kept_table(calls: Calls) -> None:
    model, compiled, ids = _prepared()
    with torch.no_grad():
        assert torch.equal(calls.returned(lambda: compiled(ids), 1), model(ids))
        model.encoder.lstm.weight_hh_l0 *= 2
        assert torch.equal(compiled(ids), model(ids))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference_in_int8(mode: Any) -> None:
    model, compiled, ids = _prepared("int8")
    with mode():
        exact = TextClassifier(V, E, H, 2).eval()
        exact.load_state_dict(model.state_dict())
        assert torch.equal(compiled(ids), model(ids))
        assert not torch.equal(compiled(ids), exact(ids))


@pytest.mark.parametrize("need_output", [True, False])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True, "proj_size": 2}])
def test_the_op(options: dict[str, Any], need_output: bool) -> None:
    model = FusedEmbeddingLSTM(V, E, H, **options).requires_grad_(False)
    weights = [model.embedding.weight, *model.lstm._flat_weights]
    ids, op = torch.randint(V, (7, 5)), torch.ops.textclf_fast.embedding_lstm_module.default
    for lengths in (None, torch.randint(1, 6, (7 if model.lstm.batch_first else 5,))):
        torch.library.opcheck(op, (ids, lengths, weights, need_output, model._number))


def test_given_weights_are_used() -> None:
    model, _, ids = _prepared()
    weights = {name: 2 * weight.detach() for name, weight in model.named_parameters()}

    def call(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
        return torch.func.functional_call(model, weights, (ids,))

    with torch.no_grad():
        own = model(ids)
        given = torch.compile(call, fullgraph=True, backend="aot_eager")(weights, ids)
        assert torch.equal(given, call(weights, ids))
        assert not torch.equal(given, own)
        assert torch.equal(model(ids), own)


def test_copies_are_modules_of_their_own() -> None:
    model, _, ids = _prepared()
    other = copy.deepcopy(model)
    assert other.encoder._number != model.encoder._number
    with torch.no_grad():
        other.encoder.embedding.weight *= 2
        assert torch.equal(torch.compile(other, fullgraph=True, backend="aot_eager")(ids), other(ids))


def test_errors_are_those_of_eager_calls() -> None:
    _, compiled, ids = _prepared()
    with torch.no_grad():
        with pytest.raises(IndexError, match=r"ids: token id 99 at \(2, 1\), expected 0 <= id < 50"):
            compiled(ids.index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(99)))
        with pytest.raises(RuntimeError, match=r"lengths\[3\] = 0, expected 1 <= length <= 7"):
            compiled(ids.index_fill(1, torch.tensor(3), 0))


# ---- Less common calls -----------------------------------------------------------------------------


def test_torch_func_grad_in_a_graph() -> None:
    model = Tagger()
    x = torch.randn(3, 2, E)

    def gradient(x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: model(x)[0].sum())(x)

    compiled = torch.compile(gradient, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), gradient(x))


def test_packed_sequence() -> None:
    """Not in one graph: its layout is checked by looking at numbers."""
    lstm = FusedLSTM(E, H)
    packed = pack_padded_sequence(torch.randn(6, 4, E), torch.tensor([6, 2, 3, 1]), enforce_sorted=False)
    given, wanted = torch.compile(lstm, backend="aot_eager")(packed), lstm(packed)
    torch.testing.assert_close(given[0].data, wanted[0].data)
    torch.testing.assert_close(given[1], wanted[1])


def test_autocast() -> None:
    model = FusedEmbeddingLSTM(V, E, 8)
    ids = torch.randint(V, (7, 5))
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(compiled(ids), model(ids))

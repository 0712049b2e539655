"""fuse and unfuse: what they change in a model and what they leave, and that its numbers stay."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, fuse, unfuse
from textclf_fast.nn import paired
from textclf_fast.optim import DeferredAdam

_V, _I, _H = 23, 5, 8
_IDS = (torch.arange(6 * 4) * 7 % _V).view(6, 4)


class _Tagger(nn.Module):
    """Someone's model: vectors of each token, by way of ``route`` between the embedding and the LSTM."""

    def __init__(self, route: str = "straight", **options: Any) -> None:
        super().__init__()
        self.route = route
        self.embedding = nn.Embedding(_V, _I, padding_idx=0, sparse=options.pop("sparse", False))
        self.drop = nn.Dropout(0.3)
        self.lstm = nn.LSTM(_I, _H, **options)
        self.out = nn.LazyLinear(3)
        with torch.no_grad():
            self(_IDS)

    def forward(self, ids: Tensor) -> Tensor:
        embedded = self.embedding(ids)
        if self.route == "packed":
            packed = pack_padded_sequence(embedded, torch.tensor([3, 6, 1, 6]), enforce_sorted=False)
            output, (h_n, _) = self.lstm(packed)
            output = pad_packed_sequence(output)[0]
        elif self.route == "swapped":  # the caller's ids are (B, T), whatever the LSTM was made for
            output, (h_n, _) = self.lstm(embedded.permute(1, 0, 2))
        elif self.route == "dropout":
            output, (h_n, _) = self.lstm(self.drop(embedded))
        elif self.route == "residual":
            output, (h_n, _) = self.lstm(embedded)
            output = torch.cat([output, embedded], -1)
        else:
            output, (h_n, _) = self.lstm(embedded)
        return self.out(output.relu()) + h_n.mean()


_ROUTES = ("straight", "packed", "swapped", "dropout", "residual")


@pytest.fixture
def from_ids(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """The ids of each call that an embedding and an LSTM ran as one."""
    seen: list[Tensor] = []
    forward = FusedEmbeddingLSTM.forward

    def spy(self: FusedEmbeddingLSTM, ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(ids)
        return forward(self, ids, *args, **kwargs)

    monkeypatch.setattr(FusedEmbeddingLSTM, "forward", spy)
    yield seen
    gc.collect()  # of failed calls' tracebacks
    assert not paired._origins, "a remembered tensor outlives its use"


def _two(*args: Any, **options: Any) -> tuple[_Tagger, _Tagger]:
    """A model, and the same to be fused."""
    plain = _Tagger(*args, **options)
    return plain, copy.deepcopy(plain)


def _gradients(model: nn.Module, *args: Any) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(3)  # dropout
    model(*args).square().sum().backward()
    return {name: p.grad.to_dense() for name, p in model.named_parameters() if p.grad is not None}


def _assert_same_gradients(fused: nn.Module, plain: nn.Module, *args: Any) -> None:
    torch.testing.assert_close(_gradients(fused, *args), _gradients(plain, *args))


# ---- Numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True, "batch_first": True}, {"num_layers": 2, "dropout": 0.4}], ids=str
)
@pytest.mark.parametrize("told", [False, True], ids=["", "told"])
@pytest.mark.parametrize("route", _ROUTES)
@pytest.mark.compat(
    "fuse", "a model's results and gradients are the same after fuse, whatever it does between its layers"
)
def test_results_and_gradients(route: str, told: bool, options: dict[str, Any], from_ids: list[Tensor]) -> None:
    plain, fused = _two(route, **options)
    fuse(fused, pairs=[("embedding", "lstm")] if told else [])
    _assert_same_gradients(fused, plain, _IDS)
    assert len(from_ids) == (told and route in ("straight", "swapped", "residual"))
    plain.eval()
    fused.eval()
    for mode in (torch.no_grad, torch.inference_mode):
        from_ids.clear()
        with mode():
            for _ in range(3):  # without the table of projected tokens, and with it
                torch.testing.assert_close(fused(_IDS), plain(_IDS))
        assert len(from_ids) == (0 if route == "packed" else 3)


def test_a_frozen_embedding_is_left_out_of_training(from_ids: list[Tensor]) -> None:
    plain, fused = _two()
    for model in (plain, fused):
        model.embedding.weight.requires_grad_(False)
    fuse(fused)
    _assert_same_gradients(fused, plain, _IDS)
    assert len(from_ids) == 1
    for model in (plain, fused):
        model.embedding.weight.requires_grad_(True)
    _assert_same_gradients(fused, plain, _IDS)
    assert len(from_ids) == 1


@pytest.mark.parametrize("told", [False, True], ids=["", "told"])
def test_what_is_kept_follows_the_weights(told: bool, from_ids: list[Tensor]) -> None:
    plain, fused = _two()
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.1, fused=True) for m in (plain, fused)]
    fuse(fused, pairs=[("embedding", "lstm")] if told else [])
    for _ in range(3):
        _assert_same_gradients(fused, plain, _IDS)
        for optimizer in optimizers:
            optimizer.step()
        with torch.inference_mode():
            for _ in range(2):
                torch.testing.assert_close(fused(_IDS), plain(_IDS), rtol=1e-4, atol=1e-5)
    other = _Tagger().state_dict()
    for model in (plain, fused):
        model.load_state_dict(other)
    with torch.no_grad():
        torch.testing.assert_close(fused(_IDS), plain(_IDS))
        torch.testing.assert_close(fused.double()(_IDS), plain.double()(_IDS))
    assert len(from_ids) == 8 + 3 * told


def test_sparse_gradients_and_deferred_rows(from_ids: list[Tensor]) -> None:
    plain, fused = _two(sparse=True)
    fuse(fused, pairs=[("embedding", "lstm")])
    optimizers = [DeferredAdam(m.parameters(), m, lr=0.1) for m in (plain, fused)]
    for step in range(4):
        ids = (_IDS * (step + 1)) % (_V - 4 * step)
        _assert_same_gradients(fused, plain, ids)
        assert fused.embedding.weight.grad.is_sparse  # type: ignore[union-attr]
        for optimizer in optimizers:
            optimizer.step()
    assert len(from_ids) == 4
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(fused(_IDS), plain(_IDS), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fused.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)


# ---- The tensor between the two is an ordinary one -----------------------------------------------


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
    return embedding(ids).view(4, 6, _I)


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
    plain, fused = _two()
    fuse(fused, pairs=[("embedding", "lstm")])
    for model in (plain, fused):
        with torch.set_grad_enabled(grad):
            output, (h_n, c_n) = model.lstm(make(model.embedding, _IDS))
            if grad:
                (output.sum() + h_n.square().sum() + c_n.sum()).backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        results.append((output, h_n, c_n, grads))
    torch.testing.assert_close(results[1], results[0])


def test_ids_that_change_after_their_lookup() -> None:
    plain, fused = _two()
    fuse(fused)
    ids = _IDS.clone()
    with torch.no_grad():
        want, _ = plain.lstm(plain.embedding(ids))
        embedded = fused.embedding(ids)
        ids.numpy()[:] = 1
        torch.testing.assert_close(fused.lstm(embedded)[0], want)


def test_changes_in_inference_mode_are_noticed() -> None:
    plain, fused = _two()
    fuse(fused)
    with torch.inference_mode():
        for change in (lambda e: e.mul_(2), lambda e: e.transpose(0, 1)[0].zero_(), lambda e: e):
            results = []
            for model in (plain, fused):
                embedded = model.embedding(_IDS)
                change(embedded)
                results.append(model.lstm(embedded)[0])
            torch.testing.assert_close(results[1], results[0])


def test_its_gradient_can_be_asked_for(from_ids: list[Tensor]) -> None:
    plain, fused = _two("residual")
    fuse(fused)
    found = []
    for model in (plain, fused):
        embedded = model.embedding(_IDS)
        output, _ = model.lstm(embedded)
        found.append(torch.autograd.grad(output.sum() + embedded.square().sum(), [embedded, model.embedding.weight]))
    torch.testing.assert_close(found[1], found[0])
    assert not from_ids


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("watch", ["hook", "retain_grad"])
def test_whoever_watches_its_gradient_gets_it(watch: str, swapped: bool, from_ids: list[Tensor]) -> None:
    plain, fused = _two()
    fuse(fused, pairs=[("embedding", "lstm")])
    found: list[Tensor] = []
    for model in (plain, fused):
        embedded = model.embedding(_IDS)
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
    plain, fused = _two()
    seen: list[list[Any]] = [[], []]
    for model, calls in ((plain, seen[0]), (fused, seen[1])):
        # (The first argument is the module.)
        getattr(model.get_submodule(where), register)(lambda _, *args, calls=calls: calls.append(args))
    fuse(fused, pairs=[("embedding", "lstm")])
    _assert_same_gradients(fused, plain, _IDS)
    with torch.no_grad():
        fused(_IDS)
        plain(_IDS)
    assert len(seen[0]) in (1, 2)
    torch.testing.assert_close(seen[1], seen[0])


def test_a_hook_may_replace_the_embedded_tensor() -> None:
    plain, fused = _two()
    for model in (plain, fused):
        model.embedding.register_forward_hook(lambda of, args, output: output * 2 if of.training else output[:3])
    fuse(fused, pairs=[("embedding", "lstm")])
    for training in (True, False):
        _assert_same_gradients(fused.train(training), plain.train(training), _IDS)


# ---- The model's own things ----------------------------------------------------------------------


def test_nothing_of_the_model_changes_but_the_classes() -> None:
    model = _Tagger()
    model.lstm.eval()
    model.lstm.bias_hh_l0.requires_grad_(False)
    modules, state = list(model.modules()), model.state_dict()
    dicts = [dict(module.__dict__) for module in modules]
    parameters = list(model.parameters())
    fuse(model, pairs=[("embedding", "lstm")])
    assert isinstance(model.lstm, FusedLSTM)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model.state_dict().keys() == state.keys()
    assert not model.lstm.training
    assert model.embedding.training
    assert not model.lstm.bias_hh_l0.requires_grad
    model.load_state_dict(state)
    _Tagger().load_state_dict(model.state_dict())
    with torch.no_grad():
        for _ in range(3):
            model(_IDS)
    unfuse(model)
    assert [type(module) for module in modules] == [_Tagger, nn.Embedding, nn.Dropout, nn.LSTM, nn.Linear]
    for module, before in zip(modules, dicts, strict=True):
        assert module.__dict__.keys() == before.keys()


def test_again_and_back_and_again(from_ids: list[Tensor]) -> None:
    plain, model = _two()
    first = fuse(model, pairs=[("embedding", "lstm")])
    assert fuse(model) == first
    assert first.lstms == {"lstm": ""}
    assert first.pairs == first.trained_pairs == (("embedding", "lstm"),)
    unfuse(model)
    unfuse(model)
    assert not fuse(model).trained_pairs
    _assert_same_gradients(model, plain, _IDS)
    assert not from_ids


def test_copies_and_pickles_are_fused_and_apart(from_ids: list[Tensor]) -> None:
    plain, fused = _two()
    fuse(fused, pairs=[("embedding", "lstm")])
    with torch.no_grad():
        for _ in range(3):
            fused(_IDS)
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        from_ids.clear()
        with torch.no_grad():
            other.embedding.weight.mul_(2)
            assert (other(_IDS) - plain(_IDS)).abs().max() > 1e-3
            torch.testing.assert_close(fused(_IDS), plain(_IDS))
        _gradients(other, _IDS)
        assert len(from_ids) == 3
        unfuse(other)
        assert type(other.lstm) is nn.LSTM


class _Shared(nn.Module):
    """One LSTM and one embedding, each used at two places, and another LSTM that nothing embedded reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_V, _I)
        self.first = nn.ModuleDict({"lstm": nn.LSTM(_I, _I), "embedding": self.embedding})
        self.second = self.first["lstm"]
        self.inner = [nn.LSTM(_I, _I)]  # no child: whoever hides it has it hidden
        self.third = nn.LSTM(_I, _H, bidirectional=True)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        x, y = self.first["embedding"](a), self.embedding(b)
        first, hx = self.first["lstm"](x)
        second, _ = self.second(y, hx)
        return self.third(first + second)[0] + self.third(x)[0] + self.inner[0](y)[0].mean()


def test_shared_modules_are_fused_once(from_ids: list[Tensor]) -> None:
    plain = _Shared()
    fused = copy.deepcopy(plain)
    report = fuse(fused)
    assert report.lstms == {"first.lstm = second": "", "third": ""}
    assert report.pairs == tuple(("embedding = first.embedding", of) for of in report.lstms)
    assert fused.first["lstm"] is fused.second
    _assert_same_gradients(fused, plain, _IDS, _IDS.flip(0))
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(fused(_IDS, _IDS.flip(0)), plain(_IDS, _IDS.flip(0)))
    assert len(from_ids) == 9
    assert type(fused.inner[0]) is nn.LSTM


def test_a_model_that_is_an_lstm() -> None:
    model = nn.LSTM(_I, _H)
    assert str(fuse(model)) == "fused  (the model itself)"
    assert isinstance(model, FusedLSTM)
    assert repr(model) == "FusedLSTM(5, 8)"
    unfuse(model)
    assert type(model) is nn.LSTM
    assert str(fuse(nn.Linear(2, 2))) == "no LSTM"


class _OwnLSTM(nn.LSTM):
    def forward(self, *args: Any) -> Any:  # type: ignore[override]
        return super().forward(args[0] * 2)


def _with_own_forward(module: nn.Module) -> nn.Module:
    forward = module.forward
    module.forward = lambda *args: forward(*args)
    return module


class _OwnEmbedding(nn.Embedding):
    pass


def test_what_is_left_and_why() -> None:
    model = nn.ModuleDict(
        {
            "plain": nn.LSTM(_I, _H),
            "float16": nn.LSTM(_I, _H, dtype=torch.float16),
            "meta": nn.LSTM(_I, _H, device="meta"),
            "projected": nn.LSTM(_I, _H, proj_size=2),
            "own": _OwnLSTM(_I, _H),
            "ours": FusedLSTM(_I, _H),
            "both": FusedEmbeddingLSTM(_V, _I, _H),
            "normed": parametrizations.weight_norm(nn.LSTM(_I, _H), "weight_hh_l0"),
            "cell": nn.LSTMCell(_I, _H),
            "quantized": torch.ao.nn.quantizable.LSTM(_I, _H),
            "patched": _with_own_forward(nn.LSTM(_I, _H)),
            "words": nn.Embedding(_V, _I),
            "unit_words": nn.Embedding(_V, _I, max_norm=1.0),
            "patched_words": _with_own_forward(nn.Embedding(_V, _I)),
            "own_words": _OwnEmbedding(_V, _I),
            "wide_words": nn.Embedding(_V, 7),
            "traced": torch.jit.trace(nn.LSTM(_I, _H), torch.randn(4, 2, _I)),
        }
    )
    classes = {name: type(module) for name, module in model.items()}
    report = fuse(model)
    assert str(report).splitlines() == [
        "fused  plain",
        "fused  float16: takes PyTorch's own path for float16 on cpu",
        "fused  meta: takes PyTorch's own path for float32 on meta",
        "fused  projected",
        "pair   words -> plain: in inference, where the one's output is the other's input",
        "pair   words -> float16: in inference, where the one's output is the other's input",
        "pair   words -> meta: in inference, where the one's output is the other's input",
        "pair   words -> projected: in inference, where the one's output is the other's input",
        f"left   own: is a {__name__}._OwnLSTM, which may do something of its own",
        "left   ours: is a FusedLSTM already",
        "left   both.lstm: is a FusedLSTM already",
        "left   normed: is parametrized; fuse first, then parametrize",
        "left   cell: is a torch.nn.modules.rnn.LSTMCell, not an nn.LSTM",
        "left   quantized: is a torch.ao.nn.quantizable.modules.rnn.LSTM, not an nn.LSTM",
        "left   patched: has a forward of its own, set on the module itself",
        "left   unit_words: has max_norm, with which a lookup changes the vectors",
        "left   patched_words: has a forward of its own, set on the module itself",
        f"left   own_words: is a {__name__}._OwnEmbedding, which may do something of its own",
        "left   traced: is a torch.jit._trace.TopLevelTracedModule, not an nn.LSTM",
    ]
    changed = {name for name, module in model.items() if type(module) is not classes[name]}
    assert changed == {"plain", "float16", "meta", "projected", "words"}
    assert type(model["both"].embedding) is nn.Embedding


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("lstm", "pairs: expected pairs of names, .embedding, lstm., got 'lstm'"),
        (("words", "lstm"), "pairs: expected an nn.Embedding that can be fused at 'words', but there is none"),
        (("drop", "lstm"), "at 'drop', but it is a torch.nn.modules.dropout.Dropout"),
        (
            ("embedding", "out"),
            "pairs: expected an nn.LSTM that can be fused at 'out', but it is a torch.nn.modules.linear",
        ),
        (("embedding", "wide"), "pairs: embedding has embedding_dim 5, expected the input_size of wide, 7"),
    ],
)
def test_pairs_that_are_none(pair: Any, message: str) -> None:
    model = _Tagger()
    model.wide = nn.LSTM(7, 3)
    with pytest.raises(ValueError, match=message):
        fuse(model, pairs=[("embedding", "lstm"), pair])
    assert type(model.lstm) is nn.LSTM  # nothing was changed
    assert type(model.embedding) is nn.Embedding


def test_no_module() -> None:
    for function in (fuse, unfuse):
        with pytest.raises(TypeError, match=r"model: expected an nn\.Module, got int"):
            function(3)  # type: ignore[arg-type]


# ---- Beside other parts of PyTorch ---------------------------------------------------------------


def test_parametrized_after_fuse() -> None:
    plain, fused = _two()
    report = fuse(fused, pairs=[("embedding", "lstm")])
    for model in (plain, fused):
        torch.manual_seed(1)
        parametrizations.weight_norm(model.lstm, "weight_hh_l0")
    assert fuse(fused) == report
    _assert_same_gradients(fused, plain, _IDS)
    with torch.no_grad():
        torch.testing.assert_close(fused(_IDS), plain(_IDS))
    with pytest.raises(ValueError, match="model: lstm is a ParametrizedPairedLSTM now"):
        unfuse(fused)
    nn.utils.parametrize.remove_parametrizations(fused.lstm, "weight_hh_l0")
    unfuse(fused)
    assert type(fused.lstm) is nn.LSTM


def test_functional_calls_and_transforms() -> None:
    plain, fused = _two()
    fuse(fused, pairs=[("embedding", "lstm")])
    weights = {name: p.detach() * 1.5 for name, p in plain.named_parameters()}
    with torch.no_grad():
        for _ in range(3):
            fused(_IDS)
        want = torch.func.functional_call(plain, weights, _IDS)
        torch.testing.assert_close(torch.func.functional_call(fused, weights, _IDS), want)
        torch.testing.assert_close(fused(_IDS), plain(_IDS))
    found = [
        torch.func.grad(lambda w, model=model: torch.func.functional_call(model, w, _IDS).sum())(weights)
        for model in (plain, fused)
    ]
    torch.testing.assert_close(found[1], found[0])


def test_autocast_and_tracing() -> None:
    plain, fused = _two()
    fuse(fused)
    with torch.no_grad():
        want = plain(_IDS)  # under autocast oneDNN refuses these sizes on some machines
        with torch.autocast("cpu"):
            torch.testing.assert_close(fused(_IDS).float(), want, rtol=2e-2, atol=2e-2)
        traced = torch.jit.trace(fused.eval(), _IDS)
        torch.testing.assert_close(traced(_IDS.flip(0)), plain.eval()(_IDS.flip(0)))

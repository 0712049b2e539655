"""The modules on a GPU against themselves on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM
from textclf_fast.nn import on_cuda

pytestmark = pytest.mark.gpu

STEPS, LENGTHS = 9, [4, 9, 1, 9, 6]
ROWS = len(LENGTHS)


@pytest.fixture(autouse=True)
def _our_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, whatever the environment asks for: by cuDNN these tests would say nothing of them."""
    monkeypatch.setattr(on_cuda, "ASKED_FOR", True)


def _module(tokens: bool, **options: Any) -> FusedEmbeddingLSTM | FusedLSTM:
    made = FusedEmbeddingLSTM(50, 12, 64, **options) if tokens else FusedLSTM(12, 64, **options)
    return made.eval()


def _batch(tokens: bool, batch_first: bool = False) -> Tensor:
    shape = (ROWS, STEPS) if batch_first else (STEPS, ROWS)
    return torch.randint(50, shape) if tokens else torch.randn(*shape, 12)


def _strict(function: Any) -> Any:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.no_grad():
            return function()
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _close(ours: Any, expected: Any, tolerance: float = 1e-4) -> None:
    if isinstance(expected, PackedSequence):
        ours, expected = ours.data, expected.data
    if isinstance(expected, tuple):
        for a, b in zip(ours, expected, strict=True):
            _close(a, b, tolerance)
    elif expected is not None:
        torch.testing.assert_close(ours.cpu(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("where", ["dense", "host", "device"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True, "num_layers": 2},
        {"bias": False},
        {"proj_size": 16},
        {"zoneout": 0.1},
        {"layer_norm": True},
        {"learn_initial_state": True},
    ],
    ids=str,
)
def test_equals_the_cpu(tokens: bool, where: str, batch_first: bool, options: dict[str, Any]) -> None:
    module, batch = _module(tokens, batch_first=batch_first, **options), _batch(tokens, batch_first)
    on_gpu = copy.deepcopy(module).cuda()
    lengths = None if where == "dense" else torch.tensor(LENGTHS)
    theirs = lengths.cuda() if lengths is not None and where == "device" else lengths
    expected = _strict(lambda: module(batch, lengths=lengths))
    for _ in range(2):  # without a table of tokens, and with it
        _close(_strict(lambda: on_gpu(batch.cuda(), lengths=theirs)), expected)
        if tokens:
            on_gpu.prepare_inference()  # type: ignore[operator]


@pytest.mark.parametrize("tokens", [False, True])
def test_states_packed_batches_and_cell_states(tokens: bool) -> None:
    module, batch = _module(tokens, bidirectional=True), _batch(tokens)
    on_gpu = copy.deepcopy(module).cuda()
    hx = torch.randn(2, ROWS, 64), torch.randn(2, ROWS, 64)
    hx_gpu = tuple(state.cuda() for state in hx)
    _close(_strict(lambda: on_gpu(batch.cuda(), hx=hx_gpu)), _strict(lambda: module(batch, hx=hx)))
    packed = pack_padded_sequence(batch, torch.tensor(LENGTHS), enforce_sorted=False)
    _close(_strict(lambda: on_gpu(packed.to("cuda"), hx=hx_gpu)), _strict(lambda: module(packed, hx=hx)))
    cells = {"return_cell_states": True}
    _close(_strict(lambda: on_gpu(batch.cuda(), **cells)), _strict(lambda: module(batch, **cells)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
def test_16_bits(dtype: torch.dtype, tolerance: float) -> None:
    module, batch = _module(True).to(dtype), _batch(True)
    expected = _strict(lambda: copy.deepcopy(module).double()(batch))
    output, states = _strict(lambda: module.cuda()(batch.cuda()))
    assert output.dtype == dtype
    _close((output.double(), tuple(s.double() for s in states)), expected, tolerance)


def test_what_is_out_of_range_is_nan() -> None:
    module, ids = _module(True).cuda(), _batch(True).cuda()
    ids[2, 1] = 50
    lengths = torch.tensor(LENGTHS)
    lengths[3] = STEPS + 1
    with torch.no_grad():
        output, (h_n, _) = module(ids, lengths=lengths.cuda())
    assert h_n[0].isnan().any(1).tolist() == [False, True, False, True, False]
    assert not output[:2, 1].isnan().any()


@pytest.mark.parametrize("tokens", [False, True])
def test_a_graph_is_captured_with_lengths_on_the_device(tokens: bool) -> None:
    module = _module(tokens).cuda()
    if tokens:
        module.prepare_inference()  # type: ignore[operator]
    batch, lengths = _batch(tokens).cuda(), torch.tensor(LENGTHS).cuda()

    def run() -> Any:
        return module(batch, lengths=lengths)

    with torch.no_grad():
        run()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = run()
        batch.copy_(_batch(tokens))
        lengths.copy_(torch.tensor(LENGTHS[::-1]))
        graph.replay()
        _close(results, run(), 0.0)


def test_tf32_follows_pytorchs_switch() -> None:
    module, ids = _module(True).cuda(), _batch(True).cuda()
    assert torch.backends.cudnn.allow_tf32
    with torch.no_grad():
        rounded = module(ids)[0]
    exact = _strict(lambda: module(ids))[0]
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=2e-3)


def test_a_plain_model_trains() -> None:
    module = nn.Sequential(_module(True)).train().cuda()
    output, _ = module(_batch(True).cuda())
    output.sum().backward()
    assert all(p.grad is not None for p in module.parameters())

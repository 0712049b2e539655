"""Which ops a module calls on CUDA tensors, shown on fake tensors, which have a device and no numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.nn.utils.rnn import PackedSequence
from torch.utils._python_dispatch import TorchDispatchMode

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, fuse, ops
from textclf_fast.launch_plan import GPUS
from textclf_fast.nn import embedding_lstm, extended, lstm, on_cuda
from textclf_fast.nn.layout import PackedLayout

OURS, CELLS = "textclf_fast.lstm_inference", "textclf_fast.lstm_cells_inference"
# What has the host wait for the GPU. (Copies: see below.)
WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.is_nonzero", "aten._unique2")


class _Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).rpartition(".")[0]
        result = func(*args, **(kwargs or {}))
        self.names.append(name)
        from_gpu = (
            isinstance(result, Tensor) and result.is_cpu and any(isinstance(a, Tensor) and a.is_cuda for a in args)
        )
        if name in WAITING or from_gpu:
            self.waits.append(name)
        return result

    @property
    def ours(self) -> list[str]:
        return [name for name in self.names if name.startswith("textclf_fast.lstm")]


@pytest.fixture(autouse=True)
def _h100(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fake tensors on a fake H100 for which the ops of inference have kernels."""
    monkeypatch.setattr(on_cuda, "cuda_has", lambda op: op in ("lstm_inference", "lstm_cells_inference"))
    monkeypatch.setattr(on_cuda, "ASKED_FOR", True)
    monkeypatch.setattr(on_cuda, "_gpu", lambda device: GPUS["H100"])
    for kind in (nn.RNNBase, nn.Embedding):  # random numbers ask for a real GPU
        monkeypatch.setattr(kind, "reset_parameters", lambda self: None)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        yield


def _floats(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, device="cuda", dtype=dtype)


def _ids(*shape: int) -> Tensor:
    return torch.empty(*shape, device="cuda", dtype=torch.int64)


def _run(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[_Calls, Any]:
    with _Calls() as calls:
        results = module(*args, **kwargs)
    return calls, results


def _lstm(**options: Any) -> FusedLSTM:
    return FusedLSTM(20, 64, device="cuda", **options).eval()


def _embedding_lstm(**options: Any) -> FusedEmbeddingLSTM:
    return FusedEmbeddingLSTM(1000, 20, 64, device="cuda", **options).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("given", ["dense", "lengths", "states", "need_output"])
def test_tokens_go_to_our_kernels_and_nobody_waits(dtype: torch.dtype, batch_first: bool, given: str) -> None:
    module = _embedding_lstm(num_layers=2, bidirectional=True, batch_first=batch_first, dtype=dtype)
    kwargs: dict[str, Any] = {}
    if given == "lengths":
        kwargs["lengths"] = _ids(3)
    if given == "states":
        kwargs["hx"] = (_floats(4, 3, 64, dtype=dtype),) * 2
    if given == "need_output":
        kwargs["need_output"] = False
    shape = (3, 5) if batch_first else (5, 3)
    calls, (output, (h_n, c_n)) = _run(module, _ids(*shape), **kwargs)
    assert calls.ours == [OURS] * 2
    assert not calls.waits
    assert given == "need_output" or (output.shape == (*shape, 128) and output.dtype == dtype and output.is_cuda)
    assert h_n.shape == c_n.shape == (4, 3, 64)


def test_one_row_of_tokens_goes_to_our_kernels() -> None:
    calls, (output, (h_n, _)) = _run(_embedding_lstm(), _ids(7))
    assert (calls.ours, output.shape, h_n.shape) == ([OURS], (7, 64), (1, 64))


def test_the_table_is_kept() -> None:
    module = _embedding_lstm()
    ids = _ids(1000, 1)
    first, second = (_run(module, ids)[0] for _ in range(2))
    assert first.names.count("aten.addmm") == 1
    assert "aten.addmm" not in second.names
    assert second.ours == [OURS]
    module = _embedding_lstm()
    with torch.enable_grad():
        module.prepare_inference()
    assert "aten.addmm" not in _run(module, _ids(1, 1))[0].names


@pytest.mark.parametrize(("batch", "rows"), [(999, 999), (1001, 1000)])
def test_without_a_table_the_lesser_of_vocabulary_and_positions_is_projected(batch: int, rows: int) -> None:
    module = _embedding_lstm(max_table_bytes=0)
    with _Calls() as calls:
        module(_ids(batch, 1))
    assert calls.ours == [OURS]
    assert ("aten.embedding" in calls.names) == (rows == batch)


def test_packed_sequences_go_to_our_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, order = torch.tensor([3, 3, 1]), _ids(3)
    for room in (embedding_lstm, lstm):  # fake sizes cannot be looked at
        monkeypatch.setattr(room, "packed_sequence_layout", lambda packed: PackedLayout(sizes, 3, order, order))
    for module, data in ((_embedding_lstm(), _ids(7)), (_lstm(), _floats(7, 20))):
        calls, (output, _) = _run(module, PackedSequence(data, sizes, order, order))
        assert calls.ours == [OURS]
        assert not calls.waits
        assert output.data.shape == (7, 64)


def test_lengths_on_the_host_go_to_our_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    with unset_fake_temporarily():  # fake lengths have no layout
        layout = ops.packed_layout(torch.tensor([5, 2, 4]), 5, 3, 1)
    monkeypatch.setattr(ops, "packed_layout", lambda *args: layout)
    for module, batch in ((_embedding_lstm(), _ids(5, 3)), (_lstm(), _floats(5, 3, 20))):
        calls, (output, _) = _run(module, batch, lengths=[5, 2, 4])
        assert calls.ours == [OURS]
        assert not calls.waits
        assert output.shape == (5, 3, 64)


@pytest.mark.parametrize("batch_first", [False, True])
def test_floats_with_lengths_go_to_our_kernels_and_nobody_waits(
    batch_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops._libraries, "cuda_has", lambda op: op == "layout_in_place")
    module = _lstm(bidirectional=True, num_layers=2, batch_first=batch_first)
    shape = (3, 5) if batch_first else (5, 3)
    calls, (output, _) = _run(module, _floats(*shape, 20), lengths=_ids(3))
    assert calls.ours == [OURS] * 2
    assert calls.names.count("textclf_fast.layout_in_place") == 1
    assert not calls.waits
    assert output.shape == (*shape, 128)


def test_dense_floats_stay_with_cudnn_until_somebody_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in ((5, 3, 20), (5, 20)):
        assert not _run(_lstm(), _floats(*shape))[0].ours
    faster = on_cuda.Measured(90, torch.float32, True, 1, 3, 64, 1.5)
    monkeypatch.setattr(on_cuda, "FORWARD", (faster,))
    assert _run(_lstm(), _floats(5, 3, 20))[0].ours == [OURS]
    monkeypatch.setattr(on_cuda, "FORWARD", (faster._replace(speed=1.02),))  # by no margin
    assert not _run(_lstm(), _floats(5, 3, 20))[0].ours


@pytest.mark.parametrize(
    "options", [{"proj_size": 8}, {"dtype": torch.float64}, {"zoneout": 0.1}, {"layer_norm": True}], ids=str
)
def test_what_the_kernels_lack_goes_pytorchs_way(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def stepwise(rows: Tensor, *args: Any) -> list[Tensor]:  # its indexing asks for a real GPU
        return [_floats(len(rows), 64), _floats(1, 3, 64), _floats(1, 3, 64), _floats(1, len(rows), 64)]

    monkeypatch.setattr(extended, "lstm_stepwise", stepwise)
    width = options.get("proj_size", 64)
    calls, (output, _) = _run(_embedding_lstm(**options), _ids(5, 3))
    assert not calls.ours
    assert output.shape == (5, 3, width)
    calls, (output, _) = _run(_lstm(**options), _floats(5, 3, 20, dtype=options.get("dtype", torch.float32)))
    assert not calls.ours
    assert output.shape == (5, 3, width)


def test_layers_that_do_not_fit_go_pytorchs_way() -> None:
    module = FusedEmbeddingLSTM(100, 20, 1024, device="cuda", dtype=torch.bfloat16).eval()
    assert not _run(module, _ids(2, 512))[0].ours
    assert _run(module, _ids(2, 16))[0].ours == [OURS]


def test_training_needs_ops_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _lstm()  # (Autograd asks for a real GPU.)
    assert on_cuda.cuda_kernels_can(module)
    with torch.enable_grad():
        assert not on_cuda.cuda_kernels_can(module)
        monkeypatch.setattr(on_cuda, "cuda_has", lambda op: op == "lstm_backward")
        assert on_cuda.cuda_kernels_can(module)


def test_kernels_that_no_gpu_has_run_are_taken_on_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    module = FusedEmbeddingLSTM(100, 20, 64, device="cuda").eval()
    assert _run(module, _ids(5, 3))[0].ours == [OURS]
    monkeypatch.setattr(on_cuda, "ASKED_FOR", False)
    assert not _run(module, _ids(5, 3))[0].ours


def test_autocast_goes_pytorchs_way() -> None:
    module = _lstm()
    torch.set_autocast_enabled("cuda", True)  # (torch.autocast would see that there is no GPU)
    try:
        assert not on_cuda.cuda_kernels_can(module)
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert on_cuda.cuda_kernels_can(module)


def test_cell_states_come_from_our_kernels() -> None:
    for module, batch in ((_embedding_lstm(num_layers=2), _ids(5, 3)), (_lstm(num_layers=2), _floats(5, 3, 20))):
        calls, (_, _, cells) = _run(module, batch, return_cell_states=True)
        assert calls.ours == [OURS, CELLS]
        assert cells.shape == (5, 3, 64)
    too_large = FusedEmbeddingLSTM(100, 20, 1024, device="cuda", dtype=torch.bfloat16).eval()
    assert _run(too_large, _ids(2, 512), return_cell_states=True)[0].ours == [CELLS]  # cuDNN has none


def test_a_fused_model_runs_from_token_ids() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(1000, 20, device="cuda")
            self.lstm = nn.LSTM(20, 64, device="cuda")

        def forward(self, ids: Tensor) -> Tensor:
            return self.lstm(self.embedding(ids))[0]  # type: ignore[no-any-return]

    model = Model().eval()
    with torch.enable_grad():
        report = str(fuse(model))
    assert "takes PyTorch's own path in training for float32 on cuda" in report
    assert _run(model, _ids(5, 3))[0].ours == [OURS]


@pytest.mark.parametrize("bias", [False, True])
def test_16_bit_inputs_are_projected_as_they_are(bias: bool) -> None:
    module = _embedding_lstm(dtype=torch.bfloat16, bidirectional=True, bias=bias, max_table_bytes=0)
    calls, _ = _run(module, _ids(5, 3))
    assert calls.names.count("aten.mm") == 2
    assert not {"aten.bmm", "aten.baddbmm", "aten.addmm"} & set(calls.names)


def test_the_nearest_measured_cell_decides_and_none_that_is_far() -> None:
    def cell(rows: int, hidden: int, speed: float = 0.0, capability: int = 90) -> on_cuda.Measured:
        return on_cuda.Measured(capability, torch.bfloat16, False, 1, rows, hidden, speed)

    cells = (cell(32, 256, 1.4), cell(32, 1024, 0.8), cell(256, 256, 2.0, capability=80))
    for layer, ours in {
        cell(32, 256): True,
        cell(64, 500): True,  # within a factor of 2
        cell(32, 520): False,  # nearer to 1024
        cell(65, 256): False,  # not near
        cell(256, 256): False,  # another GPU's
        cell(256, 256, capability=80): True,
    }.items():
        assert on_cuda.faster_than_cudnn(cells, layer) is ours, layer
    assert not on_cuda.faster_than_cudnn((), cell(32, 256))

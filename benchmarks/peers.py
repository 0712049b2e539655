"""ONNX Runtime and OpenVINO on the same weights: the embedding and the LSTM as an ONNX graph.

Both are optional (the extra ``bench``); where one is missing, the table says so. They compute inference alone. Each
runs in the fastest of the settings listed here, chosen for the cell by a few calls beforehand; ids and outputs stay in
memory that is bound once, so that a call copies nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.timing import Call, ready, seconds
from textclf_fast import FusedEmbeddingLSTM
from textclf_fast.onnx_export import onnx_model

Outputs = list[NDArray[Any]]
Candidate = tuple[str, Callable[[], None], Callable[[], Outputs]]  # settings, the call, its outputs afterwards

ONNX_RUNTIME = "ONNX Runtime"
ONNX_RUNTIME_LENGTHS = "ONNX Runtime, lengths"  # told the lengths: the input sequence_lens of its LSTM
OPENVINO = "OpenVINO"

_TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}  # bfloat16 has 8 bits: 2^-8 = 4e-3 a rounding, outputs are below 1


def make_peers(
    embedding: nn.Embedding, lstm: nn.LSTM, ids: Tensor, lengths: Tensor | None, dtype: str
) -> tuple[dict[str, Call], dict[str, str]]:
    """The peers that are installed, each checked against PyTorch before anybody times it.

    Args:
        embedding, lstm: float32 weights; copied.
        ids: (T, B) int64.
        lengths: (B,), or None for a dense batch.
        dtype: "float32" or "bfloat16": what the peers compute in; ONNX Runtime's LSTM has no bfloat16 on a CPU.

    Returns:
        The calls by name, and what there is to say of a peer by name: its settings, or why it is missing.

    Raises:
        AssertionError: a peer's output is not nn.LSTM's.
    """
    calls: dict[str, Call] = {}
    notes: dict[str, str] = {}
    threads = torch.get_num_threads()

    def enter(name: str, packages: tuple[str, ...], make: Callable[[bytes], Iterable[Candidate]], told: bool) -> None:
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            notes[name] = f"not installed: {', '.join(missing)}"
            return
        model = _onnx_model(embedding, lstm, *ids.shape, with_lengths=told)
        expected = _expected(embedding, lstm, ids, lengths if told else None)
        calls[name], notes[name] = _fastest(name, list(make(model)), expected, _TOLERANCE[dtype])

    numpy_ids = ids.numpy()
    if dtype == "float32":
        packages, plain = ("onnx", "onnxruntime"), {"ids": numpy_ids}
        enter(ONNX_RUNTIME, packages, lambda model: _onnx_runtime(model, plain, threads), told=False)
        if lengths is not None:
            both = plain | {"lengths": lengths.to(torch.int32).numpy()}
            enter(ONNX_RUNTIME_LENGTHS, packages, lambda model: _onnx_runtime(model, both, threads), told=True)
    enter(OPENVINO, ("onnx", "openvino"), lambda model: _openvino(model, numpy_ids, threads, dtype), told=False)
    return calls, notes


def versions() -> dict[str, str]:
    """The installed peers' versions, by package."""
    from importlib import metadata

    names = [name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name) is not None]
    return {name: metadata.version(name) for name in names}


def _onnx_model(embedding: nn.Embedding, lstm: nn.LSTM, steps: int, rows: int, with_lengths: bool) -> bytes:
    """Of fixed shapes: inputs ids (T, B) and, with_lengths, lengths (B,) int32; outputs output, h_n and c_n."""
    fused = FusedEmbeddingLSTM.from_modules(embedding, lstm)
    return onnx_model(fused, with_lengths=with_lengths, steps=steps, rows=rows).SerializeToString()


def _expected(embedding: nn.Embedding, lstm: nn.LSTM, ids: Tensor, lengths: Tensor | None) -> Outputs:
    """What the graph's outputs should be, in their order, in float32."""
    with torch.no_grad():
        x = embedding(ids)
        if lengths is None:
            output, (h_n, c_n) = lstm(x)
        else:
            packed, (h_n, c_n) = lstm(nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
            output, _ = nn.utils.rnn.pad_packed_sequence(packed, total_length=ids.size(0))
    return [output.numpy(), h_n.numpy(), c_n.numpy()]


def _fastest(name: str, candidates: list[Candidate], expected: Outputs, tolerance: float) -> tuple[Call, str]:
    best: tuple[float, Call, str] | None = None
    for settings, call, outputs in candidates:
        call()
        for given, wanted in zip(outputs(), expected, strict=True):
            np.testing.assert_allclose(given, wanted, rtol=0, atol=tolerance, err_msg=f"{name}, {settings}")
        ready(call, 0)
        least = min(seconds(call) for _ in range(5))
        if best is None or least < best[0]:
            best = least, call, settings
    assert best is not None  # there is at least one candidate
    return best[1], best[2]


def _onnx_runtime(model: bytes, inputs: dict[str, NDArray[Any]], threads: int) -> Iterable[Candidate]:
    """Settings tried: on all threads or one (the work of a step is small), waiting threads spin or sleep."""
    import onnxruntime as ort

    for number in sorted({threads, 1}, reverse=True):
        for spin in ("1", "0") if number > 1 else ("0",):
            options = ort.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = number, 1
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
            options.add_session_config_entry("session.intra_op.allow_spinning", spin)
            session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            binding = session.io_binding()
            for key, value in inputs.items():
                binding.bind_ortvalue_input(key, ort.OrtValue.ortvalue_from_numpy(value))
            for out in session.get_outputs():
                value = ort.OrtValue.ortvalue_from_shape_and_type(out.shape, np.float32, "cpu")
                binding.bind_ortvalue_output(out.name, value)
            yield (
                f"{number} threads, {'spinning' if spin == '1' else 'not spinning'}",
                lambda session=session, binding=binding: session.run_with_iobinding(binding),
                binding.copy_outputs_to_cpu,
            )


def _openvino(model: bytes, ids: NDArray[np.int64], threads: int, dtype: str) -> Iterable[Candidate]:
    """Settings tried: on all threads or one, threads bound to cores or not."""
    import openvino as ov

    core = ov.Core()
    graph = core.read_model(model)
    for number in sorted({threads, 1}, reverse=True):
        for pinned in (True, False) if number > 1 else (False,):
            settings = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": str(number),
                "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
                "ENABLE_CPU_PINNING": "YES" if pinned else "NO",
            }
            compiled = core.compile_model(graph, "CPU", settings)
            request = compiled.create_infer_request()
            request.set_input_tensor(ov.Tensor(ids, shared_memory=True))
            yield (
                f"{number} threads, {'pinned' if pinned else 'not pinned'}",
                lambda request=request: request.infer(share_outputs=True),
                lambda request=request: [tensor.data for tensor in request.output_tensors],
            )

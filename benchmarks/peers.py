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
        model = onnx_model(embedding, lstm, *ids.shape, with_lengths=told)
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


def reorder_gates(tensor: Tensor) -> NDArray[np.float32]:
    """(4H, ...) in PyTorch's order of gates, i, f, g, o -> in ONNX's, i, o, f, c (its c is PyTorch's g)."""
    i, f, g, o = tensor.detach().float().chunk(4)
    return torch.cat((i, o, f, g)).numpy()


def onnx_model(embedding: nn.Embedding, lstm: nn.LSTM, steps: int, rows: int, with_lengths: bool) -> bytes:
    """Gather, then an LSTM a layer, in ONNX, of fixed shapes.

    Inputs: ids (T, B) int64; with_lengths: also lengths (B,) int32. Outputs: output (T, B, D * H), and for each layer
    h_n_0, ... and c_n_0, ... (D, B, H).
    """
    from onnx import TensorProto, helper, numpy_helper

    hidden, directions = lstm.hidden_size, 2 if lstm.bidirectional else 1
    nodes = [helper.make_node("Gather", ["table", "ids"], ["x_0"], axis=0)]
    constants = {"table": embedding.weight.detach().float().numpy()}
    constants["order"] = np.array([steps, rows, directions * hidden], dtype=np.int64)
    outputs = {"output": (steps, rows, directions * hidden)}
    for layer in range(lstm.num_layers):
        suffixes = [f"_l{layer}", f"_l{layer}_reverse"][:directions]
        for name, kinds in (("W", ("weight_ih",)), ("R", ("weight_hh",)), ("B", ("bias_ih", "bias_hh"))):
            constants[f"{name}_{layer}"] = np.stack(
                [np.concatenate([reorder_gates(getattr(lstm, kind + suffix)) for kind in kinds]) for suffix in suffixes]
            )
        nodes.append(
            helper.make_node(
                "LSTM",
                [f"x_{layer}", f"W_{layer}", f"R_{layer}", f"B_{layer}", "lengths" if with_lengths else ""],
                [f"y_{layer}", f"h_n_{layer}", f"c_n_{layer}"],
                hidden_size=hidden,
                direction="bidirectional" if directions == 2 else "forward",
            )
        )
        # y is (T, D, B, H).  With one direction its order in memory is already right, and no transposition is needed.
        to = "output" if layer + 1 == lstm.num_layers else f"x_{layer + 1}"
        y = f"y_{layer}"
        if directions == 2:
            nodes.append(helper.make_node("Transpose", [y], [f"z_{layer}"], perm=[0, 2, 1, 3]))
            y = f"z_{layer}"
        nodes.append(helper.make_node("Reshape", [y, "order"], [to]))
        outputs |= {f"{state}_{layer}": (directions, rows, hidden) for state in ("h_n", "c_n")}

    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, (steps, rows))]
    if with_lengths:
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, (rows,)))
    graph = helper.make_graph(
        nodes,
        "embedding_lstm",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    # Opset 17 and format 8 are read by every release of either peer since 2022.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def _expected(embedding: nn.Embedding, lstm: nn.LSTM, ids: Tensor, lengths: Tensor | None) -> Outputs:
    """What the graph's outputs should be, in their order, in float32."""
    directions = 2 if lstm.bidirectional else 1
    with torch.no_grad():
        x = embedding(ids)
        if lengths is None:
            output, (h_n, c_n) = lstm(x)
        else:
            packed, (h_n, c_n) = lstm(nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
            output, _ = nn.utils.rnn.pad_packed_sequence(packed, total_length=ids.size(0))
    states = zip(h_n.split(directions), c_n.split(directions), strict=True)
    return [output.numpy(), *(state.numpy() for pair in states for state in pair)]


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

"""A saved classifier for programs without this package's Python: as ONNX or as an exported program of PyTorch.

What is written is compared with the model, on texts of random tokens, before it is written.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import Dim

from textclf_fast.models import Classifier, MultiInputClassifier
from textclf_fast.models.encoders import ColumnsEncoder, SequenceEncoder
from textclf_fast.onnx_export import onnx_model
from textclf_fast.storage import SavedModel
from textclf_fast.text import PAD_ID, UNK_ID
from textclf_fast.text.files import whole_file, write_atomically

Form = Literal["onnx", "torch-export"]
SUFFIXES: dict[str, Form] = {".onnx": "onnx", ".pt2": "torch-export"}

_SIZES = ((5, 3), (1, 1), (17, 8), (40, 1))  # T, B of the batches compared
_TOLERANCE = 1e-4  # of logits: other orders of float32 sums over a few hundred terms are off by some 1e-6


def export_model(saved: SavedModel, path: str | Path, form: Form) -> float | None:
    """Writes the model's forward, ids and lengths -> logits, of any B and T, and beside it PATH.json.

    The JSON object has ``labels``, by number; ``tokens``, by id; ``tokenizer``; ``padding_id``, ``unknown_id``;
    ``inputs`` and ``output``, what they are. A stored temperature is in the logits already.

    Args:
        saved: what `load_model` read; a MultiInputClassifier's inputs are those of
            :func:`textclf_fast.export_onnx`, or in an exported program those of its forward, each with lengths.
        path: of the file.
        form: ``"onnx"``; or ``"torch-export"``, a .pt2 for :func:`torch.export.load`, which needs this package's
            library, see :func:`textclf_fast.library_path`.

    Returns:
        the largest difference of the logits to the model's on random texts; None where ONNX Runtime, to compare with,
        is not installed.

    Raises:
        ImportError: the package onnx is missing.
        ValueError: proj_size, which ONNX's LSTM does not have.
        RuntimeError: what would be written computes something else.
        OSError: it cannot be written. What was there before is there still.
    """
    model = saved.model.cpu().eval()
    with torch.random.fork_rng(devices=[]):
        batches = [example(model, steps, rows) for steps, rows in _SIZES]
    if form == "onnx":
        content = _as_onnx(model)
        found = _run_onnx(content, batches)
    else:
        content = _as_program(model, batches[0])
        found = _run_program(content, batches)
    difference = None
    if found is not None:
        with torch.no_grad():
            pairs = zip(found, (model(*batch) for batch in batches), strict=True)
            # torch's maximum, not Python's: nan is not to be lost.
            difference = float(torch.stack([(other - ours).abs().max() for other, ours in pairs]).max())
        if not difference <= _TOLERANCE:
            raise RuntimeError(f"{path}: the {form} computes logits that differ by {difference} from the model's")
    with whole_file(path) as file:
        file.write(content)
    about = {
        "labels": saved.labels,
        "tokenizer": saved.tokenizer.config,
        "padding_id": PAD_ID,
        "unknown_id": UNK_ID,
        "inputs": {name: _about(name, tensor) for name, tensor in _by_name(batches[0], form).items()},
        "output": "logits (B, C) float32; their softmax over C are the probabilities of the labels",
        "tokens": saved.vocabulary.tokens,
    }
    write_atomically(f"{path}.json", json.dumps(about, ensure_ascii=False, indent=1) + "\n")
    return difference


def example(model: Classifier, steps: int, rows: int) -> tuple[Any, ...]:
    """Random arguments of the model's forward: B rows of at most T steps, the first of all of them."""
    batch_first = model.config["batch_first"]
    lengths = torch.randint(1, steps + 1, (rows,))
    lengths[0] = steps
    if not isinstance(model, MultiInputClassifier):
        return _random_ids(model.config["vocab_size"], lengths, batch_first), lengths
    inputs: dict[str, Any] = {}
    for name, encoder in zip(model.names, model.encoders, strict=True):
        if isinstance(encoder, ColumnsEncoder):
            inputs[name] = torch.randn(rows, encoder.linear.in_features)
        elif isinstance(encoder, SequenceEncoder):
            size = encoder.lstm.input_size
            inputs[name] = torch.randn((rows, steps, size) if batch_first else (steps, rows, size)), lengths
        else:
            inputs[name] = _random_ids(model.config["vocab_size"], lengths, batch_first), lengths
    return (inputs,)


def _random_ids(vocab_size: int, lengths: Tensor, batch_first: bool) -> Tensor:
    steps = int(lengths.max())
    ids = torch.randint(UNK_ID, vocab_size, (steps, len(lengths)))
    ids[torch.arange(steps).unsqueeze(1) >= lengths] = PAD_ID
    return ids.T.contiguous() if batch_first else ids


def _by_name(batch: tuple[Any, ...], form: Form) -> dict[str, Tensor]:
    """The tensors of `example` by the names that ONNX has for them; lengths there are int32."""
    if len(batch) == 2:
        named = dict(zip(("ids", "lengths"), batch, strict=True))
    else:
        named = {}
        for name, given in batch[0].items():
            if isinstance(given, Tensor):
                named[f"{name}.columns"] = given
            else:
                named[f"{name}.{'input' if given[0].is_floating_point() else 'ids'}"] = given[0]
                named[f"{name}.lengths"] = given[1]
    if form == "onnx":
        named = {name: tensor.int() if name.endswith("lengths") else tensor for name, tensor in named.items()}
    return named


def _about(name: str, tensor: Tensor) -> str:
    """What an input is, from one of T = 5 and B = 3; columns have B alone, however many they are."""
    steps, rows = _SIZES[0]
    letters = {steps: "T", rows: "B"}
    varying = 1 if name.endswith(".columns") else 2
    sizes = [letters[size] if place < varying else str(size) for place, size in enumerate(tensor.shape)]
    return f"{str(tensor.dtype).removeprefix('torch.')} ({', '.join(sizes)})"


def _as_onnx(model: Classifier) -> bytes:
    try:
        return onnx_model(model, with_lengths=True).SerializeToString()
    except ModuleNotFoundError as error:
        raise ImportError("ONNX needs the package onnx: pip install 'textclf_fast[onnx]'") from error


def _run_onnx(content: bytes, batches: Sequence[tuple[Any, ...]]) -> list[Tensor] | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    feeds = ({name: tensor.numpy() for name, tensor in _by_name(batch, "onnx").items()} for batch in batches)
    return [torch.from_numpy(session.run(None, feed)[0]) for feed in feeds]


def _as_program(model: Classifier, batch: tuple[Any, ...]) -> bytes:
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # "tensor attributes ... were assigned during export": nn.LSTM's list of its own weights.
        warnings.simplefilter("ignore", UserWarning)
        program = torch.export.export(model, batch, dynamic_shapes=_dynamic(model, batch))
        torch.export.save(program, file)
    return file.getvalue()


def _run_program(content: bytes, batches: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    program = torch.export.load(io.BytesIO(content)).module()
    with torch.no_grad():
        return [program(*batch) for batch in batches]


def _dynamic(model: Classifier, batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """For torch.export: B is one size, and each input has its own T."""
    rows = {0: Dim("B")}

    def padded(number: int) -> tuple[Mapping[int, Any], Mapping[int, Any]]:
        steps = Dim(f"T_{number}")
        return ({0: Dim("B"), 1: steps} if model.config["batch_first"] else {0: steps, 1: Dim("B")}), rows

    if len(batch) == 2:
        return padded(0)
    items = enumerate(batch[0].items())
    return ({name: rows if isinstance(given, Tensor) else padded(number) for number, (name, given) in items},)

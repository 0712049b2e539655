"""torch.onnx.export(dynamo=True): what ONNX Runtime computes of it is ours, for any B and T."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, TextClassifier

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

V, E, H = 50, 5, 7
DEEP: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


class Tagger(nn.Module):
    """A model of a user's own, with given states."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = FusedLSTM(E, H, bias=False)
        self.fc = nn.Linear(H, 3)

    def forward(self, x: Tensor, lengths: Tensor, h_0: Tensor, c_0: Tensor) -> tuple[Tensor, Tensor]:
        output, (_, c_n) = self.lstm(x, (h_0, c_0), lengths)
        return self.fc(output), c_n


class OneRow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = FusedLSTM(E, H)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


def _batch(name: str, steps: int, rows: int) -> list[Tensor]:
    lengths = torch.randint(1, steps + 1, (rows,))
    ids = torch.randint(1, V, (steps, rows)).masked_fill_(torch.arange(steps).unsqueeze(1) >= lengths, 0)
    return {
        "lstm": lambda: [torch.randn(rows, steps, E)],
        "embedding": lambda: [ids.T.contiguous(), lengths],
        "tagger": lambda: [torch.randn(steps, rows, E), lengths, torch.randn(1, rows, H), torch.randn(1, rows, H)],
        "classifier": lambda: [ids],
        "one row": lambda: [torch.randn(steps, E)],
    }[name]()


MODELS = {
    "lstm": lambda: FusedLSTM(E, H, batch_first=True, **DEEP),
    "embedding": lambda: FusedEmbeddingLSTM(V, E, H, batch_first=True, **DEEP),
    "tagger": Tagger,
    "classifier": lambda: TextClassifier(V, E, H, 2),
    "one row": OneRow,
}
_T, _B = Dim("T", min=1, max=1000), Dim("B", min=1, max=1000)
SIZES: dict[str, Any] = {
    "lstm": ({0: _B, 1: _T},),
    "embedding": ({0: _B, 1: _T}, {0: _B}),
    "tagger": ({0: _T, 1: _B}, {0: _B}, {1: _B}, {1: _B}),
    "classifier": ({0: _T, 1: _B},),
    "one row": ({0: _T},),
}


def _flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for part in value for t in _flat(part)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.compat("ONNX", "torch.onnx.export(dynamo=True): any B and T, with lengths too", nn_lstm="T is fixed")
def test_any_sizes(name: str, tmp_path: Path) -> None:
    model, file = MODELS[name]().eval(), tmp_path / "model.onnx"
    torch.onnx.export(model, tuple(_batch(name, 6, 3)), file, dynamo=True, dynamic_shapes=SIZES[name], verbose=False)
    assert "LSTM" in [node.op_type for node in onnx.load(file).graph.node]
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for steps, rows in [(6, 3), (1, 1), (11, 32)]:
        batch = _batch(name, steps, rows)
        given = session.run(None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), batch, strict=True)})
        with torch.no_grad():
            wanted = _flat(model(*batch))
        for one, other in zip(given, wanted, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (FusedLSTM(E, H, proj_size=3), "ONNX's LSTM has no projection, expected proj_size = 0, got 3"),
        (FusedLSTM(E, H, zoneout=0.1), r"neither cell states of every step nor these options: zoneout=0\.1"),
    ],
    ids=["proj_size", "zoneout"],
)
def test_what_cannot_be_written_is_refused(model: FusedLSTM, message: str) -> None:
    x = torch.randn(6, 3, E)
    with pytest.raises(torch.onnx.OnnxExporterError) as error:
        torch.onnx.export(model.eval(), (x,), dynamo=True, dynamic_shapes=({0: _T, 1: _B},), verbose=False)
    assert error.match(message)


def test_bfloat16_is_written_in_float32() -> None:
    model = FusedLSTM(E, H, dtype=torch.bfloat16).eval()
    x = torch.randn(6, 3, E, dtype=torch.bfloat16)
    graph = torch.onnx.export(model, (x,), dynamo=True, verbose=False).model_proto.graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.output, *graph.value_info]}
    (node,) = (node for node in graph.node if node.op_type == "LSTM")
    assert types[node.output[0]] == onnx.TensorProto.FLOAT
    assert types[graph.output[0].name] == onnx.TensorProto.BFLOAT16

"""Writes models as ONNX: one standard LSTM node a layer, told the lengths by its input sequence_lens.

Built by hand: what PyTorch's exporters make of an nn.LSTM knows no lengths, or is unrolled.
Source: the ONNX operators' specification, LSTM, https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast.models import MLPClassifier, MultiInputClassifier, TextClassifier
from textclf_fast.models.encoders import ColumnsEncoder, SequenceEncoder, TextEncoder
from textclf_fast.models.pooling import Pooling
from textclf_fast.nn import FusedEmbeddingLSTM
from textclf_fast.optim.deferred_rows import synchronize_rows

# Opset 17 and format 8 are read by every release of ONNX Runtime and OpenVINO since 2022.
_OPSET, _FORMAT = 17, 8


def export_onnx(model: nn.Module, path: str | Path, *, lengths: bool = True) -> None:
    """Writes a model for inference in float32, for any batch size B and number of steps T.

    Inputs of the graph, in the model's layout, (T, B) or batch-first (B, T):
        ids (T, B) int64, of a FusedEmbeddingLSTM or a classifier; input (T, B, I) float32, of a FusedLSTM.
        lengths (B,) int32, each in 1 .. T.
        Of a MultiInputClassifier, for each input NAME: NAME.ids or NAME.input, and NAME.lengths; or NAME.columns (B, F)
        float32.

    Outputs:
        output (T, B, D * H), zero past the lengths, h_n and c_n (L * D, B, H); of a classifier logits (B, C).

    Args:
        model: a FusedLSTM or nn.LSTM, a FusedEmbeddingLSTM, a TextClassifier, an MLPClassifier or a
            MultiInputClassifier.
        path: of the file, usually .onnx.
        lengths: whether the graph takes lengths. Without, every position counts; classifiers count those of texts from
            the padding, as they do themselves.

    Raises:
        ImportError: the package onnx is missing.
        TypeError: another model.
        ValueError: proj_size, which ONNX's LSTM does not have.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("export_onnx needs the package onnx: pip install 'textclf_fast[onnx]'") from error
    onnx.save(onnx_model(model, with_lengths=lengths), str(path))


def onnx_model(model: nn.Module, *, with_lengths: bool, steps: int | str = "T", rows: int | str = "B") -> Any:
    """The onnx.ModelProto that :func:`export_onnx` writes; ``steps`` and ``rows`` may be fixed."""
    graph = _Graph(steps, rows)
    with torch.no_grad():
        if isinstance(model, TextClassifier):
            graph.classify(model.fc, graph.text(model, with_lengths))
        elif isinstance(model, MLPClassifier):
            graph.classify(model.fc, graph.bag_of_words(model, with_lengths))
        elif isinstance(model, MultiInputClassifier):
            graph.classify(model.fc, graph.join_inputs(model, with_lengths))
        elif isinstance(model, FusedEmbeddingLSTM | nn.LSTM):
            if isinstance(model, nn.LSTM):
                lstm, x = model, graph.input(model)
            else:
                lstm, x = model.lstm, graph.embed(model.embedding, graph.ids(model.lstm.batch_first))
            graph.sequence(lstm, *graph.layers(lstm, x, graph.lengths() if with_lengths else ""))
        else:
            raise TypeError(
                f"model: expected a FusedLSTM, FusedEmbeddingLSTM or a classifier, got {type(model).__name__}"
            )
    return graph.model()


def reorder_gates(tensor: Tensor) -> NDArray[np.float32]:
    """(4H, ...) in PyTorch's order of gates, i, f, g, o -> in ONNX's, i, o, f, c (its c is PyTorch's g)."""
    i, f, g, o = tensor.detach().float().cpu().chunk(4)
    return torch.cat((i, o, f, g)).numpy()


class _Graph:
    """A graph in the making. Methods add nodes, time-major inside, and return the names of what they compute."""

    def __init__(self, steps: int | str, rows: int | str) -> None:
        self._steps, self._rows = steps, rows
        self._nodes: list[Any] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._prefix = ""  # of all names: those of one of several inputs

    def _add(self, op: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        from onnx import helper

        names = [self._prefix + output for output in outputs]
        self._nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names[0]

    def _constant(self, name: str, value: Any) -> str:
        name = self._prefix + name
        self._constants[name] = np.asarray(value)
        return name

    def _give(self, name: str, *shape: int | str) -> None:
        from onnx import TensorProto, helper

        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def _take(self, name: str, kind: str, *shape: int | str) -> str:
        from onnx import TensorProto, helper

        name = self._prefix + name
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind), shape))
        return name

    def _padded(self, batch_first: bool) -> tuple[int | str, int | str]:
        # Each of several inputs has a T of its own: a runtime may take what has one name for one size.
        steps = self._prefix + self._steps if isinstance(self._steps, str) else self._steps
        return (self._rows, steps) if batch_first else (steps, self._rows)

    def ids(self, batch_first: bool) -> str:
        """(T, B)"""
        ids = self._take("ids", "INT64", *self._padded(batch_first))
        return self._add("Transpose", [ids], "ids_by_step", perm=[1, 0]) if batch_first else ids

    def input(self, lstm: nn.LSTM) -> str:
        """(T, B, I)"""
        x = self._take("input", "FLOAT", *self._padded(lstm.batch_first), lstm.input_size)
        return self._add("Transpose", [x], "input_by_step", perm=[1, 0, 2]) if lstm.batch_first else x

    def lengths(self) -> str:
        """(B,) int32, as sequence_lens has to be."""
        return self._take("lengths", "INT32", self._rows)

    def lengths_before_padding(self, ids: str, padding_idx: int | None) -> str:
        """(B,) int32: the last step that is not padding; no name, for all, where there is no padding."""
        if padding_idx is None:
            return ""
        padding = self._add("Equal", [ids, self._constant("padding_idx", np.int64(padding_idx))], "is_padding")
        tokens = self._add("Cast", [self._add("Not", [padding], "is_token")], "tokens", to=6)  # int32
        shape = self._add("Shape", [ids], "steps", end=1)
        steps = self._add("Squeeze", [self._add("Cast", [shape], "steps_int32", to=6)], "last_step")
        one = self._constant("one", np.int32(1))
        stop = self._add("Add", [steps, one], "stop")
        numbers = self._add("Range", [one, stop, one], "step_numbers")
        column = self._add("Unsqueeze", [numbers, self._constant("axis_1", np.array([1], np.int64))], "step_column")
        return self._add("ReduceMax", [self._add("Mul", [tokens, column], "step_of")], "lengths", axes=[0], keepdims=0)

    def embed(self, embedding: nn.Embedding, ids: str) -> str:
        """(T, B, I)"""
        synchronize_rows(embedding)
        tokens = torch.arange(embedding.num_embeddings, device=embedding.weight.device)
        weight = embedding.weight.detach().clone()  # where there is a max_norm, it is changed
        table = functional.embedding(tokens, weight, None, embedding.max_norm, embedding.norm_type)
        return self._add("Gather", [self._constant("table", table.float().cpu().numpy()), ids], "embedded", axis=0)

    def layers(self, lstm: nn.LSTM, x: str, lengths: str) -> tuple[str, list[str], list[str]]:
        """The last layer's output, (T, D, B, H), and each layer's h_n and c_n, (D, B, H)."""
        if lstm.proj_size:
            raise ValueError(f"model: ONNX's LSTM has no projection, expected proj_size = 0, got {lstm.proj_size}")
        y, h_n, c_n = x, list[str](), list[str]()
        for layer in range(lstm.num_layers):
            if layer > 0:
                x = self._join_directions(lstm, y, f"x_{layer}")
            suffixes = [f"_l{layer}", f"_l{layer}_reverse"][: 2 if lstm.bidirectional else 1]
            weights = []
            for name, kinds in (("W", ("weight_ih",)), ("R", ("weight_hh",)), ("B", ("bias_ih", "bias_hh"))):
                if name == "B" and not lstm.bias:
                    weights.append("")
                    continue
                parts = [[reorder_gates(getattr(lstm, kind + suffix)) for kind in kinds] for suffix in suffixes]
                weights.append(self._constant(f"{name}_{layer}", np.stack([np.concatenate(part) for part in parts])))
            states = ["h_n", "c_n"] if lstm.num_layers == 1 else [f"h_n_{layer}", f"c_n_{layer}"]
            for names, state in ((h_n, states[0]), (c_n, states[1])):
                names.append(self._prefix + state)
            y = self._add(
                "LSTM",
                [x, *weights, lengths],
                f"y_{layer}",
                *states,
                hidden_size=lstm.hidden_size,
                direction="bidirectional" if lstm.bidirectional else "forward",
            )
        return y, h_n, c_n

    def _join_directions(self, lstm: nn.LSTM, y: str, name: str, batch_first: bool = False) -> str:
        """(T, D, B, H) -> (T, B, D * H), or (B, T, D * H)."""
        if lstm.bidirectional or batch_first:
            perm = [2, 0, 1, 3] if batch_first else [0, 2, 1, 3]
            y = self._add("Transpose", [y], f"{name}_by_row", perm=perm)
            return self._add("Reshape", [y, self._constant("joined", np.array([0, 0, -1], np.int64))], name)
        # One direction lies in memory as it should already.
        return self._add("Squeeze", [y, self._constant("axis_1", np.array([1], np.int64))], name)

    def sequence(self, lstm: nn.LSTM, y: str, h_n: list[str], c_n: list[str]) -> None:
        """Makes output, h_n and c_n the outputs."""
        self._join_directions(lstm, y, "output", lstm.batch_first)
        directions = 2 if lstm.bidirectional else 1
        self._give("output", *self._padded(lstm.batch_first), directions * lstm.hidden_size)
        for name, states in (("h_n", h_n), ("c_n", c_n)):
            if len(states) > 1:
                self._add("Concat", states, name, axis=0)
            self._give(name, lstm.num_layers * directions, self._rows, lstm.hidden_size)

    def pool(self, lstm: nn.LSTM, y: str, h_n: str, lengths: str, pooling: Pooling) -> str:
        """(B, W) from the last layer's output (T, D, B, H), zero past the lengths, and h_n (D, B, H)."""
        parts = []
        if pooling in ("last", "concat"):
            rows = self._add("Transpose", [h_n], "h_n_by_row", perm=[1, 0, 2])
            flat = self._constant("flat", np.array([0, -1], np.int64))
            parts.append(self._add("Reshape", [rows, flat], "last_hidden"))
        if pooling == "last":
            return parts[0]
        output = self._join_directions(lstm, y, "output_by_step")
        if pooling != "mean":
            real = self._fill_past_lengths(output, lengths) if lengths else output
            parts.append(self._add("ReduceMax", [real], "max_hidden", axes=[0], keepdims=0))
        if pooling != "max":
            parts.append(self._mean_of_steps(output, lengths))
        return self._add("Concat", parts, "pooled", axis=1)

    def _fill_past_lengths(self, output: str, lengths: str) -> str:
        """(T, B, C) with -inf past the lengths."""
        axis_2 = self._constant("axis_2", np.array([2], np.int64))
        real = self._add("Unsqueeze", [self._is_real(output, lengths), axis_2], "is_real")
        return self._add("Where", [real, output, self._constant("least", np.float32(-np.inf))], "output_or_least")

    def _is_real(self, output: str, lengths: str) -> str:
        """(T, B), for an output of T steps: whether a step is before its row's length."""
        shape = self._add("Shape", [output], "output_steps", end=1)
        steps = self._add("Squeeze", [self._add("Cast", [shape], "output_steps_int32", to=6)], "output_step_count")
        zero, one = self._constant("zero", np.int32(0)), self._constant("one", np.int32(1))
        numbers = self._add("Range", [zero, steps, one], "output_step_numbers")
        axis_1 = self._constant("axis_1", np.array([1], np.int64))
        return self._add(
            "Less", [self._add("Unsqueeze", [numbers, axis_1], "output_step_column"), lengths], "is_real_of"
        )

    def _mean_of_steps(self, output: str, lengths: str) -> str:
        """(T, B, C), zero past the lengths -> (B, C)."""
        if not lengths:
            return self._add("ReduceMean", [output], "mean_hidden", axes=[0], keepdims=0)
        axis_0, axis_1 = (self._constant(f"axis_{axis}", np.array([axis], np.int64)) for axis in (0, 1))
        total = self._add("ReduceSum", [output, axis_0], "total_hidden", keepdims=0)
        counts = self._add("Cast", [lengths], "lengths_float", to=1)
        return self._add("Div", [total, self._add("Unsqueeze", [counts, axis_1], "length_column")], "mean_hidden")

    def text(self, model: TextClassifier | TextEncoder, with_lengths: bool) -> str:
        """(B, W): the pooled states of a text, which is an input."""
        encoder = model.encoder
        ids = self.ids(encoder.lstm.batch_first)
        lengths = self.lengths() if with_lengths else self.lengths_before_padding(ids, model.padding_idx)
        y, h_n, _ = self.layers(encoder.lstm, self.embed(encoder.embedding, ids), lengths)
        return self.pool(encoder.lstm, y, h_n[-1], lengths, model.pooling)

    def bag_of_words(self, model: MLPClassifier, with_lengths: bool) -> str:
        """(B, H): the last hidden layer of a text, which is an input."""
        from onnx import numpy_helper

        ids = self.ids(model.batch_first)
        lengths = self.lengths() if with_lengths else self.lengths_before_padding(ids, model.padding_idx)
        vectors = self.embed(model.embedding, ids)
        if lengths:
            weight = self._add("Cast", [self._is_real(ids, lengths)], "weight", to=1)
        else:
            one = numpy_helper.from_array(np.ones(1, np.float32))
            weight = self._add("ConstantOfShape", [self._add("Shape", [ids], "ids_shape")], "weight", value=one)
        if model.token_weights is not None:
            table = self._constant("token_weights", model.token_weights.float().cpu().numpy())
            token_weight = self._add("Gather", [table, ids], "token_weight", axis=0)
            weight = self._add("Mul", [weight, token_weight], "real_token_weight")
        axis_0, axis_1, axis_2 = (self._constant(f"axis_{axis}", np.array([axis], np.int64)) for axis in range(3))
        weighted = self._add("Mul", [vectors, self._add("Unsqueeze", [weight, axis_2], "weight_column")], "weighted")
        bags = self._add("ReduceSum", [weighted, axis_0], "sums", keepdims=0)
        if model.mode == "mean":
            total = self._add("ReduceSum", [weight, axis_0], "total_weight", keepdims=0)
            bags = self._add("Div", [bags, self._add("Unsqueeze", [total, axis_1], "total_column")], "means")
        activation = {"relu": "Relu", "sigmoid": "Sigmoid"}[model.activation]
        units = bags
        if model.bias is not None:
            bias = self._constant("bias", model.bias.float().cpu().numpy())
            units = self._add(activation, [self._add("Add", [bags, bias], "bags_and_bias")], "units")
        for number, layer in enumerate(model.hidden):
            assert isinstance(layer, nn.Linear)
            units = self._add(activation, [self._linear(layer, units, f"hidden_{number}")], f"units_{number}")
        return units

    def join_inputs(self, model: MultiInputClassifier, with_lengths: bool) -> str:
        """(B, W): all inputs, and the layer over them."""
        vectors = []
        for name, encoder in zip(model.names, model.encoders, strict=True):
            self._prefix = f"{name}."
            if isinstance(encoder, TextEncoder):
                vectors.append(self.text(encoder, with_lengths))
            elif isinstance(encoder, SequenceEncoder):
                x, lengths = self.input(encoder.lstm), self.lengths() if with_lengths else ""
                y, h_n, _ = self.layers(encoder.lstm, x, lengths)
                vectors.append(self.pool(encoder.lstm, y, h_n[-1], lengths, encoder.pooling))
            else:
                assert isinstance(encoder, ColumnsEncoder)
                columns = self._take("columns", "FLOAT", self._rows, encoder.linear.in_features)
                vectors.append(self._add("Relu", [self._linear(encoder.linear, columns, "linear")], "units"))
        self._prefix = ""
        joined = self._add("Concat", vectors, "joined_inputs", axis=1)
        return joined if model.head is None else self._add("Relu", [self._linear(model.head, joined, "head")], "units")

    def classify(self, fc: nn.Linear, vectors: str) -> None:
        """Makes logits (B, C) the output, from one vector a row, (B, W)."""
        self._linear(fc, vectors, "logits")
        self._give("logits", self._rows, fc.out_features)

    def _linear(self, layer: nn.Linear, vectors: str, name: str) -> str:
        """(B, W) -> (B, W')"""
        operands = [vectors, self._constant(f"{name}_weight", layer.weight.float().cpu().numpy())]
        if layer.bias is not None:
            operands.append(self._constant(f"{name}_bias", layer.bias.float().cpu().numpy()))
        return self._add("Gemm", operands, name, transB=1)

    def model(self) -> Any:
        """The onnx.ModelProto."""
        from onnx import helper, numpy_helper

        constants = [numpy_helper.from_array(value, name) for name, value in self._constants.items()]
        graph = helper.make_graph(self._nodes, "textclf_fast", self._inputs, self._outputs, constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_FORMAT, producer_name="textclf_fast"
        )

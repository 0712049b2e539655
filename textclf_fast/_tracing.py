"""What may be asked while a graph is traced; imported then alone, for the decorator imports Dynamo, a second's work."""

from __future__ import annotations

import itertools

import torch

_calls = itertools.count()


@torch.compiler.assume_constant_result
def in_onnx_export() -> bool:
    """Whether torch.onnx.export is at work; Dynamo, which that tries second, would take PyTorch's answer for False."""
    return torch.onnx.is_in_onnx_export()


@torch.compiler.assume_constant_result
def number_call() -> int:
    """Another at each place of a graph: AOTAutograd makes one of two equal calls, although they draw other masks."""
    return next(_calls)

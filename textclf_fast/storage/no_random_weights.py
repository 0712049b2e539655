"""Models made to be filled with weights that are there already."""

from __future__ import annotations

from typing import Any

from torch.overrides import TorchFunctionMode

_FILLS = ("uniform_", "normal_", "kaiming_uniform_", "mul_")  # of torch.nn.init and of Tensor; mul_: embedding_std


class NoRandomWeights(TorchFunctionMode):
    """Leaves the memory of new weights as it is, which costs nothing until it is touched.

    (On the meta device, random numbers have PyTorch import a second's worth of modules.)
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))

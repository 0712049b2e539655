"""How many times as fast as cuDNN our kernels were on a dense batch of float input, one layer.

Written by `python -m benchmarks.gpu.table`; do not edit by hand. From:
- nothing: no GPU has been measured
"""

from __future__ import annotations

import torch

# capability of the GPU (90 for 9.0), dtype, tf32, directions, B, H, speed: the fields of on_cuda.Measured
Cells = tuple[tuple[int, torch.dtype, bool, int, int, int, float], ...]

FORWARD: Cells = ()
TRAINING: Cells = ()

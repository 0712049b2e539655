"""Benchmarks. Each process that takes part imports this first, before its threads start."""

import torch

# The peers' best setting: gradients fade into denormal numbers after some 130 steps, with which Intel's cores take 20
# times as long. Ours are zero there anyway (csrc/cpu/flush_denormals.inl). Threads inherit it.
torch.set_flush_denormal(True)

"""The CUDA library on a machine without CUDA: it loads beside stand-ins for what is missing, and registers its ops."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from textclf_fast import _libraries

_OPS = ["lstm_inference", "lstm_cells_inference", "lstm_training", "lstm_training_forward", "lstm_backward"]
_OPS += ["layout_in_place"]
_LOAD = """
import ctypes, sys, torch
from textclf_fast import _libraries
_libraries.load()
library = ctypes.CDLL(sys.argv[1])
library.textclf_fast_cuda_ask_tf32(_libraries._ask_tf32)
print(*filter(_libraries.cuda_has, (*sys.argv[2:], "pack_recurrent")))
"""


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch has CUDA here: the library is loaded already")
def test_registers_its_ops(tmp_path: Path) -> None:
    library = Path(_libraries.library_path()).with_name("_C_cuda.so")
    if not library.exists():
        pytest.skip("the CUDA library was not built")
    for tool in ("readelf", "cc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    symbols = subprocess.run(["readelf", "-W", "--dyn-syms", str(library)], capture_output=True, text=True, check=True)
    fields = (line.split() for line in symbols.stdout.splitlines())
    missing = {f[7] for f in fields if len(f) == 8 and f[6] == "UND" and "cuda" in f[7]}
    source, stand_in = tmp_path / "stand_in.c", tmp_path / "libtorch_cuda.so"
    source.write_text("".join(f"int {name}(void) {{ return 1; }}\n" for name in missing))
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libtorch_cuda.so", str(source), "-o", str(stand_in)]
    subprocess.run(command, check=True)
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(library), *_OPS],
        capture_output=True,
        text=True,
        env={"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(library.parents[1])},
        cwd=tmp_path,
    )
    assert done.stdout.split() == _OPS, done.stderr


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_is_allowed_where_pytorch_allows_it_for_rnns(allowed: bool) -> None:
    rnn = torch.backends.cudnn.rnn
    # PyTorch's own tests, from which some of ours are made, forbid to set these in their process.
    with torch.backends.__allow_nonbracketed_mutation():
        before = torch.backends.cudnn.allow_tf32
        try:
            torch.backends.cudnn.allow_tf32 = allowed
            assert _libraries.tf32_is_allowed() is allowed
            rnn.fp32_precision = "ieee" if allowed else "tf32"
            assert _libraries.tf32_is_allowed() is not allowed
            assert _libraries._ask_tf32() == (not allowed)
        finally:
            torch.backends.cudnn.allow_tf32 = before

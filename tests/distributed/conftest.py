"""Two processes, once for all tests: most of their time goes into importing torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import distributed_steps
import pytest
import torch
from distributed_steps import RANKS, Result

import textclf_fast


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result | str]]:
    """What each rank made of each case; or what it failed with."""
    torch_distributed = pytest.importorskip("torch.distributed")
    if not (torch_distributed.is_available() and torch_distributed.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("ranks")
    # Where this process found the package; the script's own folder is on its path anyway.
    path = os.pathsep.join([str(Path(textclf_fast.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [sys.executable, distributed_steps.__file__, str(rank), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(RANKS)
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * RANKS, "\n".join(said)
    loaded = [torch.load(folder / f"rank{rank}.pt") for rank in range(RANKS)]
    return {
        name: [found[name] if isinstance(found[name], str) else Result(*found[name]) for found in loaded]
        for name in loaded[0]
    }

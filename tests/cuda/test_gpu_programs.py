"""The programs that run kernels on a GPU, compiled where there is none: so that they do not fail there only."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from emulated import ROOT, gpu_compiler

PROGRAMS = {
    "run_lstm": "PRODUCT=Tf32Product",
    "run_backward": "PRODUCT=HalfProduct",
    "run_stepwise": "NUMBER=BFloat16",
    "run_backward_stepwise": "NUMBER=Half",
    "run_weight_sums": "",
    "run_layout": "",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_compiles_for_a_gpu(program: str, tmp_path: Path) -> None:
    source = ROOT / "tests" / "emulator" / f"{program}.cpp"
    command = [*gpu_compiler("sm_90"), f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests'}"]
    command += [f"-D{define}"] if (define := PROGRAMS[program]) else []
    done = subprocess.run(
        [*command, "-Werror", "all-warnings", "-x", "cu", "-c", source, "-o", tmp_path / "program.o"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

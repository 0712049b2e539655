"""What ptxas prints about kernels, read and written as a page; and the page that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import source_packages
from source_packages import ROOT

pytest.importorskip("setuptools")
source_packages.load("build_backend")
from build_backend.registers import KernelUse, kernel_sources, parse_ptxas, short_name, write_page  # noqa: E402

OUTPUT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5firstv' for 'sm_90'
ptxas info    : Function properties for _Z5firstv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 123 registers, used 1 barriers
ptxas info    : Compile time = 318.091 ms
ptxas info    : Compiling entry function '_Z6secondv' for 'sm_90'
ptxas info    : Function properties for _Z6secondv
    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 16 bytes cumulative stack size, 64 bytes smem
ptxas info    : Compile time = 571.046 ms
"""
USES = [KernelUse("_Z5firstv", "sm_90", 123, 0, 0, 0), KernelUse("_Z6secondv", "sm_90", 128, 64, 12, 20)]


def test_parse_ptxas() -> None:
    assert parse_ptxas(OUTPUT) == USES
    assert parse_ptxas("") == []


@pytest.mark.parametrize("missing", ["Used 128 registers", "12 bytes spill stores"])
def test_what_is_not_understood_is_an_error(missing: str) -> None:
    with pytest.raises(ValueError, match="for _Z6secondv"):
        parse_ptxas(OUTPUT.replace(missing, ""))


def test_short_name() -> None:
    kernel = "a::b::(anonymous namespace)::lstm<a::b::Half, (int)2, a::List<a::X> >(a::Params<a::b::Half::Number>)"
    assert short_name(f"void {kernel}") == "lstm<Half, 2, List<X> >"
    assert short_name("step_offsets(a::StepOffsets)") == "step_offsets"


def test_the_page_has_a_line_a_kernel_and_a_column_an_architecture() -> None:
    other = KernelUse("_Z5firstv", "sm_80", 90, 0, 0, 0)
    lines = write_page([*USES, other], "13.0").splitlines()[-4:]
    assert lines == [
        "| kernel | sm_90 | sm_80 |",
        "|---|---|---|",
        "| `_Z5firstv` | 123 | 90 |",
        "| `_Z6secondv` | 128, 64 B shared, **12 + 20 B spilled** |  |",
    ]


def test_the_page_in_docs_has_every_kernel_and_no_spills_where_the_build_makes_machine_code() -> None:
    lines = (ROOT / "docs" / "cuda-registers.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    built = [column for column, name in enumerate(rows[0]) if name in ("sm_80", "sm_90", "sm_90a")]
    assert len(built) == 3
    assert not [row for row in rows[2:] if any("spilled" in row[column] for column in built)]
    assert {row[0].strip("`").partition("<")[0] for row in rows[2:]} == _kernels()


def _kernels() -> set[str]:
    folder = ROOT / "csrc" / "cuda"
    assert kernel_sources(folder)
    texts = [path.read_text(encoding="utf-8") for path in folder.iterdir()]
    declared = r"__global__ void(?:\s+__launch_bounds__\([^)]*\))?\s+(\w+)\("
    return {name for text in texts for name in re.findall(declared, text)}


def test_sources_with_torchs_headers_hold_no_kernels(tmp_path: Path) -> None:
    (tmp_path / "a.cu").write_text("__global__ void k() {}")
    (tmp_path / "b.cu").write_text("#include <torch/csrc/stable/ops.h>")
    assert kernel_sources(tmp_path) == [tmp_path / "a.cu"]

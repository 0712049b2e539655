"""The compiled libraries as they were installed: what they need, and what they leave out."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import textclf_fast

PACKAGE = Path(textclf_fast.__file__).parent

pytestmark = pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf (binutils) is not installed")


def _readelf(option: str, library: str) -> str:
    path = PACKAGE / library
    if library == "_C_cuda.so" and not path.exists():
        pytest.skip("the CUDA library was not built")
    return subprocess.run(["readelf", "-W", option, str(path)], check=True, capture_output=True, text=True).stdout


def _needed(library: str) -> set[str]:
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", _readelf("-d", library)))


def _symbols(library: str) -> tuple[set[str], set[str]]:
    """Names that the library defines for others, and names that it wants from others."""
    defined, wanted = set(), set()
    for line in _readelf("--dyn-syms", library).splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[0].rstrip(":").isdecimal():
            (wanted if fields[6] == "UND" else defined).add(fields[7].partition("@")[0])
    return defined, wanted


@pytest.mark.parametrize("library", ["_C.so", "_C_cuda.so"])
def test_plain_libraries_know_no_python(library: str) -> None:
    assert not {name for name in _needed(library) if "python" in name}
    defined, wanted = _symbols(library)
    assert not {name for name in defined | wanted if re.match(r"_?Py[A-Z_]|PyInit", name)}


@pytest.mark.parametrize("library", ["_C.so", "_C_cuda.so"])
def test_only_the_stable_abi_is_used(library: str) -> None:
    _, wanted = _symbols(library)
    assert any(name.startswith("aoti_torch_") for name in wanted)
    # Mangled names of at:: and c10:: change from one torch to the next.
    assert not {name for name in wanted if re.match(r"_ZN?K?(2at|3c10|5torch)", name)}


@pytest.mark.parametrize("library", ["_C.so", "_C_cuda.so"])
def test_no_search_path_of_the_build_machine_is_left(library: str) -> None:
    assert not re.search(r"\((RPATH|RUNPATH)\)", _readelf("-d", library))


def test_cpu_library_needs_no_cuda() -> None:
    assert not {name for name in _needed("_C.so") if "cuda" in name}


def test_cuda_library_takes_libtorch_cuda_from_the_process() -> None:
    needed = _needed("_C_cuda.so")
    assert {"libtorch_cuda.so", "libtorch_cpu.so"} <= needed
    assert not {name for name in needed if name.startswith(("libcudart", "libcublas", "libcuda."))}, needed
    defined, _ = _symbols("_C_cuda.so")
    assert not {name for name in defined if name.startswith("cuda")}, "cudart must stay inside"


def test_host_module_needs_no_torch() -> None:
    (module,) = PACKAGE.glob("_host.*.so")
    assert not {name for name in _needed(module.name) if re.search("torch|c10|libpython", name)}

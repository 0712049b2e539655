"""The build helpers: switches, finding torch and the toolchain, and the one line that each failure gives."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import source_packages
from source_packages import ROOT

pytest.importorskip("setuptools")
source_packages.load("build_backend")
from build_backend import cuda_toolkit, find_torch, host_compiler, ninja_file, switches, trial  # noqa: E402
from build_backend.errors import BuildError  # noqa: E402


def _program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def _one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# Switches


@pytest.mark.parametrize(("value", "mode"), [(None, "auto"), ("", "auto"), ("auto", "auto"), ("0", "0"), ("1", "1")])
def test_cuda_mode(value: str | None, mode: str) -> None:
    assert switches.cuda_mode({} if value is None else {"TEXTCLF_FAST_CUDA": value}) == mode


@pytest.mark.parametrize("value", ["yes", "2", "AUTO", " 1"])
def test_cuda_mode_refuses(value: str) -> None:
    with pytest.raises(BuildError, match=re.escape(f"TEXTCLF_FAST_CUDA={value!r}")) as error:
        switches.cuda_mode({"TEXTCLF_FAST_CUDA": value})
    assert "use auto" in _one_line(error)


@pytest.mark.parametrize(("value", "jobs"), [("", None), ("1", 1), ("12", 12)])
def test_max_jobs(value: str, jobs: int | None) -> None:
    assert switches.max_jobs({"MAX_JOBS": value}) == jobs


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_max_jobs_refuses(value: str) -> None:
    with pytest.raises(BuildError, match=re.escape(f"MAX_JOBS={value!r}")):
        switches.max_jobs({"MAX_JOBS": value})


@pytest.mark.parametrize("value", ["8.0;9.0a+PTX", "8.0 9.0a+PTX", "8.0, 9.0a+PTX;"])
def test_cuda_architectures(value: str) -> None:
    entries = switches.cuda_architectures({"TORCH_CUDA_ARCH_LIST": value})
    assert entries == ["8.0", "9.0a+PTX"]
    assert switches.gencode_flags(entries) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_90a,code=compute_90a",
    ]


def test_cuda_architectures_unset_or_wrong() -> None:
    assert switches.cuda_architectures({}) is None
    assert switches.cuda_architectures({"TORCH_CUDA_ARCH_LIST": ""}) is None
    with pytest.raises(BuildError, match="'sm_90' is not understood"):
        switches.cuda_architectures({"TORCH_CUDA_ARCH_LIST": "8.0;sm_90"})


# torch


def _stand_in_torch(site: Path, version: str, *, headers: bool = True) -> Path:
    root = site / "torch"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('the build must not import torch')")
    (root / "version.py").write_text(
        f"from typing import Optional\n__version__ = '{version}'\ncuda: Optional[str] = None\n"
    )
    if headers:
        (root / "include/torch/csrc/stable").mkdir(parents=True)
        (root / "include/torch/csrc/stable/library.h").touch()
    return root


@pytest.fixture
def hidden_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an isolated build: no torch on sys.path."""
    monkeypatch.setattr(find_torch.importlib.util, "find_spec", lambda name: None)


@pytest.mark.usefixtures("hidden_torch")
@pytest.mark.parametrize("version", ["2.11.0", "2.13.0+cpu", "3.0.0a0+git1234"])
def test_torch_is_found_where_pip_installs(tmp_path: Path, version: str) -> None:
    root = _stand_in_torch(tmp_path / "site", version)
    torch = find_torch.find_torch([str(tmp_path / "nothing"), str(tmp_path / "site")])
    assert torch == find_torch.Torch(root, version)
    assert torch.include == root / "include"


@pytest.mark.usefixtures("hidden_torch")
def test_an_unfit_torch_is_passed_over(tmp_path: Path) -> None:
    _stand_in_torch(tmp_path / "old", "2.10.1")
    _stand_in_torch(tmp_path / "bare", "2.12.0", headers=False)
    _stand_in_torch(tmp_path / "good", "2.12.0")
    sites = [str(tmp_path / name) for name in ("old", "bare", "good")]
    assert find_torch.find_torch(sites[:2]) is None
    torch = find_torch.find_torch(sites)
    assert torch is not None
    assert torch.root == tmp_path / "good/torch"


@pytest.mark.usefixtures("hidden_torch")
def test_missing_torch_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"torch is not installed.*pip install 'torch>=2\.11'") as error:
        find_torch.require_torch([str(tmp_path)])
    _one_line(error)
    _stand_in_torch(tmp_path, "2.5.1")
    with pytest.raises(BuildError, match=r"torch 2\.5\.1 in .* is too old"):
        find_torch.require_torch([str(tmp_path)])


def test_install_directories_hold_the_running_torch() -> None:
    import torch

    site = str(Path(torch.__file__).parent.parent)
    if site not in find_torch.install_directories():
        pytest.skip("torch is not installed where pip installs")
    found = find_torch.find_torch()
    assert found is not None
    assert found.version == torch.__version__


def test_requirements_name_torch_only_where_none_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from build_backend import backend

    monkeypatch.setattr(backend.build_meta, "get_requires_for_build_wheel", lambda settings: ["something"])
    monkeypatch.setattr(backend, "find_torch", lambda: find_torch.Torch(tmp_path, "2.13.0"))
    assert backend.get_requires_for_build_wheel() == ["something"]
    monkeypatch.setattr(backend, "find_torch", lambda: None)
    assert backend.get_requires_for_build_wheel() == ["something", "torch>=2.11"]


# The C++ compiler


def test_no_compiler_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no C\+\+ compiler found.*apt install g\+\+") as error:
        host_compiler.find_host_compiler({"PATH": str(tmp_path)})
    _one_line(error)
    with pytest.raises(BuildError, match="CXX='nothing-like-it' is not there"):
        host_compiler.find_host_compiler({"PATH": str(tmp_path), "CXX": "nothing-like-it"})


def test_unfit_compiler_says_why(tmp_path: Path) -> None:
    old = _program(tmp_path / "old-g++", "echo \"old-g++: error: unrecognized option '-std=c++20'\" >&2; exit 1")
    with pytest.raises(BuildError, match=r"cannot build C\+\+20 \(old-g\+\+: error: unrecognized") as error:
        host_compiler.find_host_compiler({**os.environ, "CXX": str(old)})
    _one_line(error)


# The CUDA toolkit


def _fake_nvcc(home: Path, release: str, compile_script: str) -> dict[str, str]:
    _program(
        home / "bin/nvcc",
        f"""case "$1" in
        --version) echo "Cuda compilation tools, release {release}, V{release}.88";;
        --list-gpu-code)
          if [ {release} = 12.9 ]; then echo "nvcc fatal: odd flag"; exit 1; fi
          printf "sm_75\\nsm_80\\nsm_90\\n";;
        *) {compile_script};;
        esac""",
    )
    return {"PATH": os.environ["PATH"], "CUDA_HOME": str(home)}


def test_a_fitting_toolkit(tmp_path: Path) -> None:
    toolkit, line = cuda_toolkit.find_cuda_toolkit(_fake_nvcc(tmp_path, "13.0", "exit 0"))
    assert toolkit is not None
    assert toolkit.command == [str(tmp_path / "bin/nvcc")]
    assert toolkit.architectures == ["8.0", "9.0+PTX"]
    assert line == "built for 8.0;9.0+PTX by nvcc 13.0.88"


UNFIT = [
    ("12.9", "exit 0", "--list-gpu-code failed .nvcc fatal: odd flag"),
    ("11.8", "exit 0", "nvcc 11.8.88 .* is too old: 12.0 or newer"),
    (
        "13.0",
        "echo 'x.cu: In file included from'; echo 'host_config.h: error: #error -- unsupported GNU version!'; exit 1",
        "fails a trial compile: host_config.h: error: #error -- unsupported GNU version!",
    ),
]


@pytest.mark.parametrize(("release", "script", "reason"), UNFIT)
def test_an_unfit_toolkit(tmp_path: Path, release: str, script: str, reason: str) -> None:
    environ = _fake_nvcc(tmp_path, release, script)
    toolkit, line = cuda_toolkit.find_cuda_toolkit(environ)
    assert toolkit is None
    assert line.startswith("not built: ")
    assert re.search(reason, line)
    assert "\n" not in line
    with pytest.raises(BuildError, match=f"TEXTCLF_FAST_CUDA=1 asks for CUDA, but .*{reason}") as error:
        cuda_toolkit.find_cuda_toolkit({**environ, "TEXTCLF_FAST_CUDA": "1"})
    assert "install a fitting CUDA toolkit" in _one_line(error)


def test_no_toolkit(tmp_path: Path) -> None:
    toolkit, line = cuda_toolkit.find_cuda_toolkit({"PATH": str(tmp_path), "CUDA_HOME": str(tmp_path)})
    assert toolkit is None
    assert line == f"not built: CUDA_HOME={tmp_path} holds no bin/nvcc"


def test_cuda_switched_off(tmp_path: Path) -> None:
    environ = _fake_nvcc(tmp_path, "13.0", "exit 0")
    assert cuda_toolkit.find_cuda_toolkit({**environ, "TEXTCLF_FAST_CUDA": "0"}) == (
        None,
        "not built: TEXTCLF_FAST_CUDA=0 was set",
    )


def test_default_architectures_follow_the_toolkit() -> None:
    assert cuda_toolkit.default_architectures("sm_75\nsm_80\nsm_86\nsm_90\nsm_100") == ["8.0", "9.0+PTX"]
    assert cuda_toolkit.default_architectures("sm_90\nsm_100") == ["9.0+PTX"]
    assert cuda_toolkit.default_architectures("sm_100") == []


# Running the tools


def test_first_complaint() -> None:
    assert trial.first_complaint("note: a\nx.cpp:1: error: b\nx.cpp:2: error: c") == "x.cpp:1: error: b"
    assert trial.first_complaint("\n  killed \n") == "killed"
    assert trial.first_complaint("") == "no output"


def test_ninja_builds_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        ninja = ninja_file.find_ninja(os.environ)
    except BuildError:
        pytest.skip("ninja is not installed")
    source, target = Path("a $b:c.txt"), Path("out/copy of it")
    source.write_text("one")
    statements = ninja_file.NinjaFile()
    statements.rule("copy", ["sh", "-c", 'echo run >> log; cp "$0" "$1"', "$in", "$out"])
    statements.build(target, "copy", [source])
    statements.write(tmp_path / "build.ninja")
    for text, runs in [("one", 1), ("one", 1), ("two", 2)]:
        if source.read_text() != text:
            source.write_text(text)
        ninja_file.run_ninja(ninja, tmp_path, 1)
        assert target.read_text() == text
        assert Path("log").read_text() == "run\n" * runs


def test_a_failing_compiler_is_one_line(tmp_path: Path) -> None:
    try:
        ninja = ninja_file.find_ninja(os.environ)
    except BuildError:
        pytest.skip("ninja is not installed")
    statements = ninja_file.NinjaFile()
    statements.rule("fail", ["false"])
    statements.build(Path("x"), "fail")
    statements.write(tmp_path / "build.ninja")
    with pytest.raises(BuildError, match="the compiler's own message is above"):
        ninja_file.run_ninja(ninja, tmp_path, None)


@pytest.mark.parametrize(("variable", "value"), [("TEXTCLF_FAST_CUDA", "maybe"), ("CXX", "no-such-compiler")])
def test_setup_ends_without_a_traceback(tmp_path: Path, variable: str, value: str) -> None:
    environ = {**os.environ, "TEXTCLF_FAST_CUDA": "0", variable: value}
    options = ["--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")]
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", *options], cwd=ROOT, env=environ, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert re.search(rf"^error: .*{variable}='{value}'", done.stderr, re.MULTILINE)


def test_linters_are_pinned_once_and_the_same() -> None:
    constraints = set(re.findall(r"^[\w-]+==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    hooks = set(re.findall(r"[\w-]+==[\w.]+", (ROOT / ".pre-commit-config.yaml").read_text()))
    assert hooks
    assert hooks <= constraints

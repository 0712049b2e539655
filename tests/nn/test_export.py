"""torch.export with dynamic sizes, saved and loaded; AOTInductor, run where this package is not imported."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import textclf_fast
from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, TextClassifier

V, E, H = 50, 4, 6
MODELS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: FusedLSTM(E, H),
    "lstm, deep": lambda: FusedLSTM(E, H, num_layers=2, bidirectional=True),
    "lstm, projected": lambda: FusedLSTM(E, H, num_layers=2, proj_size=3),
    "embedding": lambda: FusedEmbeddingLSTM(V, E, H),
    "classifier": lambda: TextClassifier(V, E, H, 2, bidirectional=True),
}


def _batch(model: nn.Module, steps: int, rows: int, with_lengths: bool) -> dict[str, Tensor]:
    lengths = torch.randint(1, steps + 1, (rows,))
    x = torch.randn(steps, rows, E) if isinstance(model, FusedLSTM) else torch.randint(1, V, (steps, rows))
    name = "input" if isinstance(model, FusedLSTM) else "ids"
    return {name: x, "lengths": lengths} if with_lengths else {name: x}


def _exported(model: nn.Module, with_lengths: bool, strict: bool) -> torch.export.ExportedProgram:
    steps, rows = Dim("T", min=1, max=10_000), Dim("B", min=1, max=10_000)
    batch = _batch(model, 7, 5, with_lengths)
    shapes = {name: {0: rows} if name == "lengths" else {0: steps, 1: rows} for name in batch}
    return torch.export.export(model, (), batch, dynamic_shapes=shapes, strict=strict)


@pytest.mark.parametrize("with_lengths", [False, True], ids=["dense", "lengths"])
@pytest.mark.parametrize(
    ("name", "strict"), [*((name, False) for name in MODELS), ("lstm", True), ("classifier", True)]
)
@pytest.mark.compat("torch.export", "any B and T in one program, strict or not", nn_lstm="one T a program")
def test_saved_and_loaded(name: str, strict: bool, with_lengths: bool) -> None:
    model, file = MODELS[name]().eval(), io.BytesIO()
    with torch.no_grad():
        torch.export.save(_exported(model, with_lengths, strict), file)
        file.seek(0)
        program = torch.export.load(file)
        for steps, rows in [(7, 5), (1, 1), (12, 32)]:
            batch = _batch(model, steps, rows, with_lengths)
            torch.testing.assert_close(program.module()(**batch), model(**batch), rtol=1e-6, atol=1e-6)
    ops = {str(node.target) for node in program.graph.nodes}
    assert "textclf_fast.lstm_inference.default" in ops


def test_an_exported_program_can_be_trained() -> None:
    model = TextClassifier(V, E, H, 2)
    batch = _batch(model, 6, 3, True)
    program = _exported(model, True, strict=False).module()
    torch.testing.assert_close(
        torch.autograd.grad(program(**batch).sum(), list(program.parameters())),
        torch.autograd.grad(model(**batch).sum(), list(model.parameters())),
    )


def test_bad_ids_are_named_at_run_time() -> None:
    with torch.no_grad():
        program = _exported(FusedEmbeddingLSTM(V, E, H), False, strict=False).module()
        with pytest.raises(RuntimeError, match="99"):
            program(ids=torch.full((3, 2), 99))


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
def test_a_package_runs_without_ours(tmp_path: Path) -> None:
    model = TextClassifier(V, E, H, 2).eval()
    package, tensors = tmp_path / "model.pt2", tmp_path / "tensors.pt"
    with torch.no_grad():
        torch._inductor.aoti_compile_and_package(
            _exported(model, True, strict=False),
            package_path=str(package),
            inductor_configs={"aot_inductor.compile_wrapper_opt_level": "O0"},  # a quarter of the time
        )
        batches = [_batch(model, steps, rows, True) for steps, rows in [(7, 5), (12, 32)]]
        torch.save([(batch["ids"], batch["lengths"], model(**batch)) for batch in batches], tensors)
    code = f"""
import sys, torch
torch.ops.load_library({textclf_fast.library_path()!r})
model = torch._inductor.aoti_load_package({str(package)!r})
for ids, lengths, wanted in torch.load({str(tensors)!r}):
    torch.testing.assert_close(model(ids=ids, lengths=lengths), wanted)
assert "textclf_fast" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr

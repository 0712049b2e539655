"""Help, wrong usage, and how the program ends."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from textclf_fast.cli import app


def test_help_names_all_commands(run: Any) -> None:
    ran = run("--help")
    assert ran.status == 0
    commands = ("train", "autotune", "predict", "serve", "evaluate", "calibrate", "baseline", "export")
    for command in (*commands, "demo", "data", "info"):
        assert f" {command} " in ran.out
    assert "Exit status: 0 done" in ran.out
    assert "--install-completion" in ran.out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["FILE", "--text", "--label", "--out", "--epochs", "--held-out", "--seed", "--overwrite"]),
        ("train", ["─ Data ─", "─ Model ─", "─ Training ─", "─ Checkpoints ─", "─ Output ─", "textclf-fast train rt"]),
        ("autotune", ["FILE", "--out", "--minutes", "trials.json", "textclf-fast autotune"]),
        ("predict", ["DIR", "FILE", "--jsonl", "--explain", "standard"]),
        ("serve", ["DIR", "--host", "--port", "--max-body", "─ Limits ─", "textclf-fast serve model/", "curl"]),
        ("evaluate", ["MODEL", "FILE", "--part", "--output", "--json", "textclf-fast evaluate model reviews.csv"]),
        ("baseline", ["FILE", "--model", "--epochs", "--json", "textclf-fast baseline"]),
        ("export", ["MODEL", "PATH", "--to", "textclf-fast export model model.onnx"]),
        ("calibrate", ["MODEL", "FILE", "--part", "textclf-fast calibrate"]),
        ("demo", ["--out", "--epochs", "--seed"]),
        ("data", ["NAME"]),
        ("info", ["versions"]),
    ],
)
def test_help_of_a_command(run: Any, command: str, words: list[str]) -> None:
    ran = run(command, "--help")
    assert ran.status == 0
    for word in words:
        assert word in ran.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "trian"),
        (["train"], "FILE"),
        (["train", "a.csv"], "--out"),
        (["train", "a.csv", "--out", "m", "--colour", "red"], "--colour"),
        (["train", "a.csv", "--out", "m", "--epochs", "many"], "--epochs"),
        (["train", "a.csv", "--out", "m", "--epochs", "0"], "--epochs"),
        (["train", "a.csv", "--out", "m", "--lr", "0"], "positive"),
        (["train", "a.csv", "--out", "m", "--lr", "nan"], "positive"),
        (["train", "a.csv", "--out", "m", "--held-out", "1"], "between 0 and 1"),
        (["train", "a.csv", "--out", "m", "--schedule", "zigzag"], "--schedule"),
        (["train", "a.csv", "--out", "m", "--monitor", "f1"], "--monitor"),
        (["train", "a.csv", "--out", "m", "--patience", "0"], "--patience"),
        (["train", "a.csv", "--out", "m", "--clip-norm", "0"], "--clip-norm"),
        (["train", "a.csv", "--out", "m", "--model", "mlp", "--pooling", "max"], "--pooling"),
        (["autotune", "a.csv", "--out", "m", "--minutes", "-1"], "--minutes"),
        (["data", "imaginary"], "imaginary"),
    ],
)
def test_wrong_usage_is_one_line(run: Any, tmp_path: Path, args: list[str], message: str) -> None:
    ran = run(*args)
    assert ran.status == 2
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert message in ran.err
    assert not list(tmp_path.iterdir())


def test_mistakes_of_the_program_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**unused: Any) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(app, "app", broken)
    with pytest.raises(KeyError, match="a mistake"):
        app.main([])


def test_data_lists_the_data_sets(run: Any) -> None:
    ran = run("data")
    assert ran.status == 0
    assert ran.out.startswith("Labelled texts:\nrt: 12,808 sentences")
    assert "Pang" in ran.out
    assert "\nTexts without labels, to pre-train on:\nmovie_dialog: " in ran.out


def test_info(run: Any) -> None:
    assert "CPU kernels" in run("info").out
    assert "CPU kernels" in json.loads(run("info", "--json").out)


@pytest.mark.parametrize(
    ("words", "completed"), [("textclf-fast tr", "train"), ("textclf-fast train --pat", "--patience")]
)
def test_shell_completion(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str, completed: str
) -> None:
    monkeypatch.setenv("_TEXTCLF_FAST_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with contextlib.suppress(SystemExit):
        app.main([])
    assert completed in capsys.readouterr().out.split()


def test_python_m(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "textclf_fast", "predict", "nowhere"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: nowhere: there is no such directory, expected one with a model\n"


def test_commands_do_not_import_what_they_may_not_need(tmp_path: Path) -> None:
    """The package itself needs torch and numpy; the help of the program needs nothing more but typer and rich."""
    code = (
        "import sys, textclf_fast\n"
        "heavy = {'rich', 'typer', 'safetensors', 'platformdirs', 'matplotlib', 'sklearn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import textclf_fast.cli.app\n"
        "late = {'safetensors', 'matplotlib', 'sklearn', 'textclf_fast.training', 'textclf_fast.text'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)

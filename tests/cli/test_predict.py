from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import textclf_fast

GOOD, BAD = "The soup was delicious and the waiter was kind.", "The soup was cold and the waiter was rude."


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Makes it standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))  # type: ignore[arg-type]


def test_reads_standard_input(run: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, f"{GOOD}\n{BAD}\n".encode())
    ran = run("predict", model)
    assert (ran.status, ran.err) == (0, "")
    probabilities = textclf_fast.load(model).predict_proba([GOOD, BAD])
    assert ran.out == f"positive\t{probabilities[0, 1]:.4f}\nnegative\t{probabilities[1, 0]:.4f}\n"


@pytest.mark.parametrize("end", ["", "\n"])
def test_reads_a_file(run: Any, model: Path, tmp_path: Path, end: str) -> None:
    (tmp_path / "texts").write_text(f"{GOOD}\n{BAD}{end}")
    ran = run("predict", model, "texts")
    assert [line.split("\t")[0] for line in ran.out.splitlines()] == ["positive", "negative"]


def test_one_line_out_for_one_line_in(run: Any, model: Path, tmp_path: Path) -> None:
    """Blank lines, Windows' line ends, other characters that split lines elsewhere, a byte order mark."""
    (tmp_path / "texts").write_bytes(f"\ufeff{GOOD}\r\n\n \n\u2028\x0b\x0c\x85\n{GOOD}\n\n".encode())
    ran = run("predict", model, "texts", "--jsonl")
    lines = ran.out.splitlines()
    assert len(lines) == 6
    assert lines[0] == lines[4]  # the mark and the \r are no part of the text
    assert lines[1] == lines[2] == lines[5]


def test_nothing_in_nothing_out(run: Any, model: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").touch()
    assert run("predict", model, "texts") == (0, "", "")


def test_more_lines_than_are_read_at_once(
    run: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textclf_fast.cli.predict._READ_BYTES", 13)
    texts = [GOOD, BAD, "", "naïve café", GOOD] * 3
    (tmp_path / "texts").write_text("\n".join(texts))
    expected = textclf_fast.load(model).predict(texts)
    assert [line.split("\t")[0] for line in run("predict", model, "texts").out.splitlines()] == expected


def test_json_lines(run: Any, model: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text(f"{GOOD}\n\n")
    ran = run("predict", model, "texts", "--jsonl")
    first, second = map(json.loads, ran.out.splitlines())
    assert first["label"] == "positive"
    assert list(first["probabilities"]) == ["negative", "positive"]
    assert sum(second["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_words_that_mattered(run: Any, model: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text(f"{GOOD}\n\n")
    found = textclf_fast.load(model).explain(GOOD)
    lines = run("predict", model, "texts", "--explain").out.splitlines()
    label, probability, words = lines[0].split("\t")
    assert (label, probability) == (found.label, f"{found.probabilities[found.label]:.4f}")
    shown = [word.split(":") for word in words.split(" ")]
    order = sorted(range(len(found.tokens)), key=lambda place: -abs(found.scores[place]))[:5]
    assert [word for word, _ in shown] == [found.tokens[place] for place in order]
    assert [float(score) for _, score in shown] == pytest.approx([found.scores[p] for p in order], rel=1e-2)
    assert lines[1].endswith("\t"), "a text without a word"
    first, second = map(json.loads, run("predict", model, "texts", "--explain", "--jsonl").out.splitlines())
    assert [word["word"] for word in first["words"]] == found.tokens
    assert [word["score"] for word in first["words"]] == pytest.approx(found.scores, rel=1e-3)
    assert second["words"] == []


@pytest.mark.parametrize("chunk", [2**20, 5])
def test_broken_utf8(run: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("textclf_fast.cli.predict._READ_BYTES", chunk)
    (tmp_path / "texts").write_bytes(GOOD.encode() + b"\n\ncaf\xe9 noir\n" + BAD.encode())
    ran = run("predict", model, "texts")
    assert ran.status == 2
    assert ran.err == "error: texts: line 3: byte 0xe9 is not UTF-8\n"
    assert ran.out.count("\n") == 2, "what came before is answered"


@pytest.mark.parametrize(
    ("directory", "file", "words"),
    [
        ("nowhere", "-", ["nowhere: there is no such directory"]),
        (".", "-", ["not a model: there is no model.safetensors"]),
        (None, "nothing.txt", ["nothing.txt: No such file"]),
        (None, ".", [".: Is a directory"]),
    ],
)
def test_missing_things(run: Any, model: Path, directory: str | None, file: str, words: list[str]) -> None:
    ran = run("predict", directory or model, file)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    for word in words:
        assert word in ran.err


def test_answers_each_line_as_it_comes(model: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "textclf_fast", "predict", str(model)],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for text, label in ((GOOD, "positive"), (BAD, "negative")):
            process.stdin.write(text + "\n")
            assert process.stdout.readline().startswith(label + "\t")
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.stdout.close()


def test_a_reader_that_goes_away_is_no_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text(f"{GOOD}\n" * 20_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "textclf_fast", "predict", str(model), "texts"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("positive")
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    process.wait(timeout=60)

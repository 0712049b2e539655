"""`textclf-fast pretrain`, and `train --from` what it wrote."""

from __future__ import annotations

import csv
import signal
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import TOY, Run

from textclf_fast.training import load_model, pretraining
from textclf_fast.training.language_model_files import load_language_model

SMALL = ["--embedding-dim", 12, "--hidden-dim", 16, "--batch-size", 4, "--steps", 10, "--min-frequency", 1]


def write_texts(path: Path) -> Path:
    with TOY.open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    path.write_text("\n".join(texts) + "\n\n", encoding="utf-8")
    return path


def test_text_file(run: Run, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts.txt")
    ran = run("pretrain", texts, "--out", "lm", "--epochs", 2, "--held-out", 0.1, *SMALL)
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert " to train on, " in lines[0]
    assert lines[1].startswith("epoch 1: loss ")
    assert "held-out perplexity" in lines[2]
    assert lines[-1] == "To use it: textclf-fast train FILE --from lm --out DIR"
    saved = load_language_model(tmp_path / "lm")
    assert saved.model.config["bidirectional"]
    assert len(saved.extra["epochs"]) == 2
    assert saved.extra["epochs"][1]["perplexity"] < len(saved.vocabulary)


def test_several_sources_and_columns(run: Run, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts.txt")
    ran = run(
        "pretrain", texts, TOY, "--out", "lm", "--epochs", 1, "--held-out", 0.1, "--forward", "--layers", 2, *SMALL
    )
    assert ran.status == 0
    assert load_language_model(tmp_path / "lm").model.config["num_layers"] == 2


def test_minutes(run: Run, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts.txt")
    ran = run("pretrain", texts, "--out", "lm", "--epochs", 10**6, "--minutes", 0.01, "--held-out", 0.1, *SMALL)
    assert ran.status == 0


def test_stopped_by_ctrl_c_it_is_of_use_and_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ["pretrain", write_texts(tmp_path / "texts.txt"), "--epochs", 2, "--held-out", 0.1]
    step, calls = pretraining._step, 0

    def interrupted(*rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            signal.raise_signal(signal.SIGINT)
        return step(*rest)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "_step", interrupted)
        ran = run(*args, "--out", "lm", *SMALL)
    assert (ran.status, calls) == (130, 3)
    assert ran.err.splitlines()[0] == "note: stopped; the same command with --resume goes on"
    first = load_language_model(tmp_path / "lm")
    assert [epoch["tokens"] for epoch in first.extra["epochs"]] == [3 * 4 * 10]
    ran = run(*args, "--out", "lm", "--overwrite", "--resume", "--seed", 1, *SMALL)
    assert ran.status == 2
    assert "lm.training/checkpoint.safetensors: is of a training with seed 0, not 1" in ran.err
    ran = run(*args, "--out", "whole", "--from", "lm", "--batch-size", 4, "--steps", 10, "--lr", 0.001)
    assert ran.status == 0
    second = load_language_model(tmp_path / "whole")
    assert (second.model.config, second.vocabulary) == (first.model.config, first.vocabulary)
    perplexities = [saved.extra["epochs"][-1]["perplexity"] for saved in (first, second)]
    assert perplexities[1] < perplexities[0]
    ran = run(*args, "--out", "lm", "--resume", *SMALL)
    assert ran.status == 0
    assert "goes on in epoch 1, after step 3\n" in ran.out
    assert not (tmp_path / "lm.training").exists()
    run(*args, "--out", "never stopped", *SMALL)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("lm", "never stopped")]
    assert weights[0] == weights[1]
    assert run(*args, "--out", "lm", "--resume", *SMALL).out == "lm: the training is over\n"
    ran = run(*args, "--out", "other", "--from", "lm", "--hidden-dim", 3)
    assert ran.status == 2
    assert "'--hidden-dim': comes from the language model with --from" in ran.err


def test_characters(run: Run, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts.txt")
    options = ["--tokenizer", "character", "--held-out", 0.1, "--epochs", 1, *SMALL]
    assert run("pretrain", texts, "--out", "lm", *options).status == 0
    saved = load_language_model(tmp_path / "lm")
    assert saved.tokenizer.config == {"kind": "character", "lower": False}
    assert run("train", TOY, "--from", "lm", "--out", "model", "--epochs", 1, "--lm-epochs", 1).status == 0
    assert load_model("model").tokenizer.config == saved.tokenizer.config


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["absent.txt"], "absent.txt: "),
        (["texts.txt", "--layers", 2], "--layers: 2 layers can read in one direction alone: add --forward"),
        (["absent.txt", "--tokenizer", "bpe"], "error: absent.txt: "),
        (["texts.txt", "--tokenizer", "bpe", "--vocab-size", 9], "'--vocab-size': vocab_size: expected at least 258"),
        (["few.txt"], "few.txt: too few texts: none to hold out"),
        (["texts.txt", "--minutes", -1], "expected a positive number, got -1.0"),
    ],
)
def test_mistakes(run: Run, tmp_path: Path, args: list[object], message: str) -> None:
    write_texts(tmp_path / "texts.txt")
    (tmp_path / "few.txt").write_text("one text\n")
    ran = run("pretrain", *args, "--out", "lm", *SMALL[:4])
    assert ran.status == 2
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "lm").exists()


def test_what_is_there_is_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "notes.txt").write_text("mine")
    ran = run("pretrain", TOY, "--out", "lm", "--overwrite", *SMALL)
    assert ran.status == 2
    assert (tmp_path / "lm" / "notes.txt").read_text() == "mine"

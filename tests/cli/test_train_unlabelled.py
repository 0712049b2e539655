"""`train --unlabelled`: texts without labels join those to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cli.conftest import TOY, Run
from safetensors.torch import save

import textclf_fast
from textclf_fast.cli import training_run
from textclf_fast.models import MLPClassifier, inverse_document_frequency
from textclf_fast.text import encode_texts, read_labelled, split
from textclf_fast.training import load_model

SMALL = ("--embedding-dim", 8, "--hidden-dim", 8, "--epochs", 2, "--lr", 0.02)


def test_it_says_what_it_does(run: Run, files: tuple[Path, Path]) -> None:
    few, many = files
    ran = run("train", few, "--out", "model", *SMALL, "--unlabelled", many, "--teachers", 2)
    assert (ran.status, ran.err) == (0, "")
    first, one, two, guessed, *rest = ran.out.splitlines()
    assert first.startswith("50 texts, 2 classes; 40 to train on, 10 held out; vocabulary of 3")  # of all texts
    assert one.startswith("teacher 1/2: held-out accuracy ")
    assert two.startswith("teacher 2/2: held-out accuracy ")
    assert guessed.startswith("150 texts without labels, by the teachers: ")
    assert guessed.endswith("% sure")
    assert rest[0].startswith("epoch 1/2: loss ")
    saved = load_model("model")
    start = saved.extra["start"]
    assert (start["texts without labels"], start["their number"]) == (str(many), 150)
    assert start["teachers, whose guesses are their labels"] == 2
    assert 0.5 <= start["how sure these were"] <= 1
    assert f"| texts without labels | {many} |" in Path("model/README.md").read_text()
    assert not Path("model.training").exists()
    assert len(textclf_fast.load("model").predict(["good", "bad"])) == 2


def test_the_seed_decides_all(run: Run, files: tuple[Path, Path]) -> None:
    few, many = files
    for out in ("one", "two"):
        ran = run("train", few, "--out", out, *SMALL, "--unlabelled", many, "--teachers", 1, "--seed", 3)
        assert ran.status == 0, ran.err
    one, two = (load_model(out).model.state_dict() for out in ("one", "two"))
    assert all(one[name].equal(two[name]) for name in one)


def test_without_them_nothing_is_different(run: Run, files: tuple[Path, Path]) -> None:
    few, _ = files
    for out, more in (("one", []), ("two", ["--teachers", 5])):
        assert run("train", few, "--out", out, *SMALL, *more).status == 0
    one, two = (load_model(out).model.state_dict() for out in ("one", "two"))
    assert all(one[name].equal(two[name]) for name in one)


def test_texts_that_have_a_label_are_left_out(run: Run, files: tuple[Path, Path]) -> None:
    """Whether held out or not, and whatever their white space and case."""
    few, many = files
    texts = [f"  {text.upper()}" for text in read_labelled(few).texts]
    many.write_text("".join(f"{text}\n" for text in [*texts, "a new one"]))
    ran = run("train", few, "--out", "model", *SMALL, "--unlabelled", many, "--teachers", 1)
    assert "\n1 texts without labels, by the teachers: 1 " in ran.out
    many.write_text("".join(f"{text}\n" for text in texts))
    ran = run("train", few, "--out", "other", *SMALL, "--unlabelled", many)
    assert ran.status == 2
    assert ran.err.splitlines()[-1].endswith("many.txt: expected a text without a label, there is none")


def test_resume_takes_the_guesses(run: Run, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = files
    options = (few, *SMALL, "--unlabelled", many, "--teachers", 2)
    assert run("train", *options, "--out", "whole").status == 0
    line, calls = training_run._line, 0

    def interrupted(*args: Any) -> str:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return line(*args)

    monkeypatch.setattr(training_run, "_line", interrupted)
    assert run("train", *options, "--out", "model").status == 130
    assert Path("model.training/guesses.safetensors").exists()
    ran = run("train", *options, "--out", "model", "--resume")
    assert (ran.status, "teacher 1/2" in ran.out) == (0, False)
    assert "150 texts without labels, by the teachers: " in ran.out
    whole, model = (load_model(out).model.state_dict() for out in ("whole", "model"))
    assert all(whole[name].equal(model[name]) for name in whole)


def test_resume_with_other_texts(run: Run, files: tuple[Path, Path]) -> None:
    few, many = files
    Path("model.training").mkdir()
    for content in (b"nonsense", save({"labels": torch.zeros(3), "confidence": torch.ones(3)})):
        Path("model.training/guesses.safetensors").write_bytes(content)
        ran = run("train", few, "--out", "model", *SMALL, "--unlabelled", many, "--resume")
        assert ran.status == 2
        assert "guesses.safetensors: " in ran.err.splitlines()[-1]


def test_bags_are_weighted_by_all_texts(run: Run, files: tuple[Path, Path]) -> None:
    few, many = files
    options = ("--preset", "bag", "--epochs", 1, "--unlabelled", many, "--teachers", 1, "--held-out", 0.2)
    assert run("train", few, "--out", "bag", *options).status == 0
    saved = load_model("bag")
    assert isinstance(saved.model, MLPClassifier)
    texts = [*split(read_labelled(few))[0].texts, *many.read_text().splitlines()]
    tokens = encode_texts(texts, saved.tokenizer, saved.vocabulary)
    expected = torch.as_tensor(inverse_document_frequency(tokens.values, tokens.offsets, len(saved.vocabulary))).float()
    torch.testing.assert_close(saved.model.token_weights, expected)


def test_other_models(run: Run, files: tuple[Path, Path]) -> None:
    few, many = files
    options = ("--preset", "bag", "--epochs", 1, "--unlabelled", many, "--teachers", 1, "--class-weights", "balanced")
    ran = run("train", few, "--out", "bag", *options)
    assert ran.status == 0, ran.err
    small = ("--embedding-dim", 8, "--hidden-dim", 8, "--batch-size", 4, "--steps", 10, "--min-frequency", 1)
    assert run("pretrain", many, "--out", "lm", "--epochs", 1, "--held-out", 0.1, *small).status == 0
    options = ("--from", "lm", "--preset", "transfer", "--epochs", 1, "--lm-epochs", 1, "--teachers", 2)
    ran = run("train", few, "--out", "model", *options, "--unlabelled", many, "--unlabelled", TOY)
    assert ran.status == 0, ran.err
    # 40 with a label and 150 of either file, whose others have one:
    assert "lm: reads the 340 texts to train on, 1 times" in ran.out


def test_a_missing_file(run: Run, files: tuple[Path, Path]) -> None:
    ran = run("train", files[0], "--out", "model", *SMALL, "--unlabelled", "nowhere.txt")
    assert ran.status == 2
    assert "nowhere.txt" in ran.err.splitlines()[-1]
    assert not Path("model").exists()

"""`train --teacher`: a sentence encoder, trained on with the labels, labels other texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli.conftest import TOY, Run
from tiny_encoder import encoder as encoder

import textclf_fast
from textclf_fast.cli import training_run
from textclf_fast.training import load_model

SMALL = ("--embedding-dim", 8, "--hidden-dim", 8, "--epochs", 2, "--lr", 0.02)


def _weights(directory: str) -> dict[str, Any]:
    return load_model(directory).model.state_dict()


def test_it_says_what_it_does(run: Run, encoder: Path, files: tuple[Path, Path]) -> None:
    few, many = files
    ran = run("train", few, "--out", "model", *SMALL, "--teacher", encoder, "--unlabelled", many)
    assert (ran.status, ran.err) == (0, "")
    _, taught, guessed, *rest = ran.out.splitlines()
    assert taught.startswith(f"teacher 1/1, {encoder}: held-out accuracy ")
    assert guessed.startswith("150 texts without labels, by the teachers: ")
    assert rest[0].startswith("epoch 1/2: loss ")
    start = load_model("model").extra["start"]
    assert (start["texts without labels"], start["their number"]) == (str(many), 150)
    assert start["teacher, whose probabilities are their labels"] == str(encoder)
    assert start["how often it saw the texts to train on"] == 50  # 100 steps of two batches each
    assert "variants of each text" not in start
    assert f"| teacher, whose probabilities are their labels | {encoder} |" in Path("model/README.md").read_text()
    assert not Path("model.training").exists()
    assert len(textclf_fast.load("model").predict(["good", "bad"])) == 2


def test_variants(run: Run, encoder: Path, files: tuple[Path, Path]) -> None:
    """Of all texts, with other ones or without them; and several teachers."""
    few, many = files
    ran = run("train", few, "--out", "model", *SMALL, "--teacher", encoder, "--variants", 3, "--teachers", 2)
    assert ran.status == 0, ran.err
    assert f"teacher 2/2, {encoder}: held-out accuracy " in ran.out
    start = load_model("model").extra["start"]
    assert start["variants of each text"] == 3
    assert 60 < start["their number"] <= 120  # of 40 to train on
    assert start["teachers"] == 2
    assert "texts without labels" not in start
    options = ("--teacher", encoder, "--variants", 1, "--unlabelled", many)
    assert run("train", few, "--out", "other", *SMALL, *options).status == 0
    assert 150 + 100 < load_model("other").extra["start"]["their number"] <= 150 + 190


def test_the_seed_decides_all_and_the_teacher_counts(run: Run, encoder: Path, files: tuple[Path, Path]) -> None:
    few, many = files
    for out, more in (("one", ["--teacher", encoder]), ("two", ["--teacher", encoder]), ("other", [])):
        assert run("train", few, "--out", out, *SMALL, "--unlabelled", many, *more).status == 0
    one, two, other = map(_weights, ("one", "two", "other"))
    assert all(one[name].equal(two[name]) for name in one)
    assert not one["fc.weight"].equal(other["fc.weight"])


def test_resume_takes_what_it_said(
    run: Run, encoder: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And refuses what others said."""
    few, many = files
    options = (few, *SMALL, "--teacher", encoder, "--unlabelled", many, "--variants", 1)
    assert run("train", *options, "--out", "whole").status == 0

    def interrupt(*unused: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "fit_by_layers", interrupt)
        ran = run("train", *options, "--out", "model")
        assert (ran.status, "--resume goes on from " in ran.err) == (130, True)
    ran = run("train", *options, "--out", "model", "--teachers", 2, "--resume")
    assert ran.status == 2
    assert "guesses.safetensors: is of a training with teachers {" in ran.err.splitlines()[-1]
    ran = run("train", *options, "--out", "model", "--resume")
    assert (ran.status, "teacher 1/1" in ran.out) == (0, False)
    whole, model = map(_weights, ("whole", "model"))
    assert all(whole[name].equal(model[name]) for name in whole)


def test_with_all_that_comes_before_labels(run: Run, encoder: Path, files: tuple[Path, Path]) -> None:
    """The language model reads the texts without a label, and no variants."""
    few, many = files
    small = ("--embedding-dim", 8, "--hidden-dim", 8, "--batch-size", 4, "--steps", 10, "--min-frequency", 1)
    assert run("pretrain", many, "--out", "lm", "--epochs", 1, "--held-out", 0.1, *small).status == 0
    options = ("--from", "lm", "--preset", "transfer", "--epochs", 1, "--class-weights", "balanced", "--bf16")
    both = ("--distil", encoder, "--distil-epochs", 1, "--teacher", encoder, "--teacher-epochs", 1)
    ran = run("train", few, "--out", "model", *options, *both, "--unlabelled", many, "--variants", 1)
    assert ran.status == 0, ran.err
    assert "lm: reads the 190 texts to train on, 3 times" in ran.out
    assert {"language model", "sentence encoder", "variants of each text"} <= set(load_model("model").extra["start"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--variants", 2], "Invalid value for '--variants': is for --teacher"),
        (["--teacher-epochs", 2], "Invalid value for '--teacher-epochs': is for --teacher"),
        (
            ["--teacher", "minilm"],
            "Invalid value for '--teacher': expected --unlabelled, --variants or --generated with it",
        ),
        (["--teacher", "nowhere", "--variants", 1], "error: there is no directory 'nowhere', and no sentence encoder"),
    ],
)
def test_wrong_options(run: Run, options: list[object], message: str) -> None:
    ran = run("train", TOY, "--out", "model", *SMALL, *options)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err
    assert not Path("model").exists()

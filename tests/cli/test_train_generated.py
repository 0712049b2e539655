"""`train --generated`: the language model generates texts, and teachers label them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli.conftest import TOY, Run
from tiny_encoder import encoder as encoder

from textclf_fast.cli import training_run, training_start
from textclf_fast.cli.app import main
from textclf_fast.text import read_labelled, same_text
from textclf_fast.training import load_model


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("language_models") / "lm"
    small = ["--embedding-dim", "12", "--hidden-dim", "16", "--batch-size", "4", "--steps", "10"]
    small += ["--min-frequency", "1", "--held-out", "0.1", "--epochs", "1"]
    assert main(["pretrain", str(TOY), "--out", str(directory), *small]) == 0
    return directory


def test_it_says_what_it_does(run: Run, language_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of the texts is one that there is."""
    known = read_labelled(TOY).texts
    monkeypatch.setattr(training_start, "generate_texts", lambda *_: [known[0].upper(), "so good", known[-1], "so bad"])
    options = (TOY, "--from", language_model, "--epochs", 1, "--generated", 4, "--teachers", 1)
    ran = run("train", *options, "--out", "model")
    assert (ran.status, ran.err) == (0, "")
    _, _, generated, teacher, guessed, *_ = ran.out.splitlines()
    assert generated == "2 other texts, by the language model, such as: so good"
    assert teacher.startswith("teacher 1/1: held-out accuracy ")
    assert guessed.startswith("2 texts without labels, by the teachers: ")
    start = load_model("model").extra["start"]
    assert (start["texts that the language model generated"], start["their number"]) == (2, 2)
    assert "| texts that the language model generated | 2 |" in Path("model/README.md").read_text()
    assert not Path("model.training").exists()


def test_beside_others(run: Run, language_model: Path, encoder: Path, files: tuple[Path, Path]) -> None:
    """Texts without a label and variants, of one teacher; as long as those to train on at most."""
    few, many = files
    options = ("--teacher", encoder, "--teacher-epochs", 1, "--unlabelled", many, "--variants", 1, "--generated", 300)
    ran = run("train", few, "--out", "model", "--from", language_model, "--epochs", 1, *options, "--distil", encoder)
    assert ran.status == 0, ran.err
    start = load_model("model").extra["start"]
    number = start["texts that the language model generated"]
    assert 100 < number <= 300
    assert 150 + 100 + number < start["their number"] <= 150 + 190 + number


@pytest.mark.parametrize("distils", [False, True])
@pytest.mark.parametrize(
    ("module", "name"),
    [(training_start, "encode_texts"), (training_start, "with_guesses"), (training_run, "_line")],
    ids=["once they are there", "once they have labels", "after an epoch"],
)
def test_resume_takes_the_same_texts(
    run: Run,
    language_model: Path,
    encoder: Path,
    files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    distils: bool,
) -> None:
    """Whenever it was stopped, it ends with the bits of one that was not; other options are refused."""
    few, _ = files
    options = [few, "--from", language_model, "--epochs", 2, "--teachers", 1, "--keep", "last"]
    options += ["--distil", encoder, "--distil-epochs", 1] if distils else []
    assert run("train", *options, "--generated", 50, "--out", "whole").status == 0

    def interrupt(*unused: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, name, interrupt)
        ran = run("train", *options, "--generated", 50, "--out", "model")
        assert (ran.status, "--resume goes on from " in ran.err) == (130, True)
    ran = run("train", *options, "--generated", 51, "--out", "model", "--resume")
    assert ran.status == 2
    assert "generated.safetensors: is of a training with generated texts 50, not 51" in ran.err
    monkeypatch.setattr(training_start, "generate_texts", interrupt)
    ran = run("train", *options, "--generated", 50, "--out", "model", "--resume")
    assert (ran.status, ran.err) == (0, "")
    weights = [Path(name, "model.safetensors").read_bytes() for name in ("whole", "model")]
    assert weights[0] == weights[1]


def test_none_that_is_new(run: Run, language_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_start, "generate_texts", lambda *_: [])
    ran = run("train", TOY, "--from", language_model, "--epochs", 1, "--generated", 4, "--out", "model")
    assert (ran.status, ran.err) == (0, "")
    assert "0 other texts, by the language model\n" in ran.out
    assert "teacher" not in ran.out


def test_needs_a_language_model(run: Run) -> None:
    ran = run("train", TOY, "--generated", 4, "--out", "model")
    assert (ran.status, ran.out) == (2, "")
    assert "Invalid value for '--generated': is for --from" in ran.err


def test_no_text_of_the_data_comes_back(run: Run, language_model: Path) -> None:
    ran = run("train", TOY, "--from", language_model, "--epochs", 1, "--generated", 500, "--out", "model")
    assert ran.status == 0
    texts = {same_text(text) for text in read_labelled(TOY).texts}
    line = next(line for line in ran.out.splitlines() if "such as: " in line)
    assert same_text(line.split("such as: ")[1]) not in texts

"""`train --generated`: the language model generates texts, and teachers label them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli.conftest import TOY, Run
from tiny_encoder import encoder as encoder

from textclf_fast.cli import training_run, training_start
from textclf_fast.cli.teachers import OwnKind
from textclf_fast.text import WordTokenizer, read_labelled, split
from textclf_fast.training import load_model


def test_it_says_what_it_does(run: Run, language_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of the texts has the words of one that there is, to train on or held out, however it is written."""
    data = read_labelled(TOY)
    known = data.texts
    rows = "".join(f"\"{text} - ' so ' ..\",{label}\n" for text, label in zip(known, data.labels, strict=True))
    Path("toy.csv").write_text(f"text,label\n{rows}")
    split_into_words = WordTokenizer()
    same = [split_into_words.detokenize(split_into_words(text)) for text in read_labelled(Path("toy.csv")).texts]
    assert not set(same) & set(read_labelled(Path("toy.csv")).texts)
    monkeypatch.setattr(training_start, "generate_texts", lambda *_: [*same, same[0].upper(), "so good", "so bad"])
    options = ("toy.csv", "--from", language_model, "--epochs", 1, "--generated", 300, "--teachers", 1)
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


def test_beside_others(
    run: Run, language_model: Path, encoder: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts without a label and variants, of one teacher; as long as those to train on at most."""
    few, many = files
    asked: list[int] = []
    generate = training_start.generate_texts

    def watched(model: Any, count: int, longest: int, *rest: Any) -> list[str]:
        asked.append(longest)
        return generate(model, count, longest, *rest)

    monkeypatch.setattr(training_start, "generate_texts", watched)
    options = ("--teacher", encoder, "--teacher-epochs", 1, "--unlabelled", many, "--variants", 1, "--generated", 300)
    ran = run("train", few, "--out", "model", "--from", language_model, "--epochs", 1, *options, "--distil", encoder)
    assert ran.status == 0, ran.err
    start = load_model("model").extra["start"]
    number = start["texts that the language model generated"]
    assert 100 < number <= 300
    train, _ = split(read_labelled(few))
    assert asked == [max(len(WordTokenizer()(text)) for text in train.texts)]
    assert 150 + 100 + number < start["their number"] <= 150 + 190 + number


@pytest.mark.parametrize("distils", [False, True])
@pytest.mark.parametrize(
    ("module", "name"),
    [(OwnKind, "guess"), (training_start, "with_guesses"), (training_run, "_line")],
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
    ran = run("train", *options, "--out", "model", "--resume")
    assert ran.status == 2
    assert "generated.safetensors: is of a training with generated texts 50, not 0" in ran.err
    ran = run("train", *options, "--generated", 50, "--lm-epochs", 0, "--out", "model", "--resume")
    assert ran.status == 2
    assert "generated.safetensors: is of a training with times that it read the texts 3, not 0" in ran.err
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


def test_who_is_told_how_to_go_on(
    run: Run, language_model: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not whoever is interrupted before there is something of its own, beside what another training left."""
    few, _ = files
    options = (few, "--from", language_model, "--epochs", 1, "--teachers", 1, "--out", "model")

    def interrupt(*unused: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_start, "with_guesses", interrupt)
        ran = run("train", *options, "--generated", 50)
        assert (ran.status, "--resume goes on from " in ran.err) == (130, True)
    monkeypatch.setattr(training_start, "generate_texts", interrupt)
    ran = run("train", *options, "--generated", 20, "--overwrite")
    assert (ran.status, "--resume goes on from " in ran.err) == (130, False)

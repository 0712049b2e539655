"""`train --distil`: a classifier learns from a sentence encoder first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cli.conftest import TOY, Run
from tiny_encoder import encoder as encoder

import textclf_fast
from textclf_fast.cli import training_run
from textclf_fast.models import MLPClassifier
from textclf_fast.training import load_model

SMALL = ("--embedding-dim", 8, "--hidden-dim", 8, "--epochs", 2, "--lr", 0.02, "--distil-epochs", 20)


def _weights(directory: str) -> dict[str, Any]:
    return load_model(directory).model.state_dict()


def test_it_says_what_it_does(run: Run, encoder: Path) -> None:
    ran = run("train", TOY, "--out", "model", *SMALL, "--distil", encoder)
    assert (ran.status, ran.err) == (0, "")
    _, reads, cosine, *rest = ran.out.splitlines()
    assert reads == f"{encoder}: reads the 160 texts to train on; the model learns what it makes of them"
    assert cosine.startswith(f"{encoder}: the model's vectors of texts have a mean cosine of 0.")
    assert rest[0].startswith("epoch 1/2: loss ")
    start = load_model("model").extra["start"]
    assert start["sentence encoder"] == str(encoder)
    assert start["times the model read the texts with it"] == 20
    assert 0 < start["mean cosine of its vectors and the encoder's"] < 1
    assert f"| sentence encoder | {encoder} |" in Path("model/README.md").read_text()
    assert not Path("model.training").exists()
    assert len(textclf_fast.load("model").predict(["good", "bad"])) == 2


def test_the_seed_decides_all_and_the_encoder_counts(run: Run, encoder: Path) -> None:
    for out, more in (("one", ["--distil", encoder]), ("two", ["--distil", encoder]), ("other", [])):
        assert run("train", TOY, "--out", out, *SMALL, *more).status == 0
    one, two, other = map(_weights, ("one", "two", "other"))
    assert all(one[name].equal(two[name]) for name in one)
    assert not one["encoder.embedding.weight"].equal(other["encoder.embedding.weight"])


def test_with_all_that_comes_before_labels(run: Run, encoder: Path, files: tuple[Path, Path]) -> None:
    """A language model, and texts without a label; teachers begin with what was learnt, too."""
    small = ("--embedding-dim", 8, "--hidden-dim", 8, "--batch-size", 4, "--steps", 10, "--min-frequency", 1)
    assert run("pretrain", "many.txt", "--out", "lm", "--epochs", 1, "--held-out", 0.1, *small).status == 0
    options = ("--from", "lm", "--preset", "transfer", "--epochs", 1, "--distil", encoder, "--distil-epochs", 1)
    ran = run("train", files[0], "--out", "model", *options, "--unlabelled", "many.txt", "--teachers", 2)
    assert ran.status == 0, ran.err
    assert "lm: reads the 190 texts to train on, 3 times" in ran.out
    assert f"{encoder}: reads the 190 texts to train on" in ran.out
    assert "teacher 2/2: held-out accuracy " in ran.out
    start = load_model("model").extra["start"]
    assert {"language model", "sentence encoder", "texts without labels"} <= set(start)


def test_another_kind_of_model(run: Run, encoder: Path, files: tuple[Path, Path]) -> None:
    """Its words are weighted by all the texts that it reads, those without a label as well."""
    options = ("--preset", "bag", "--epochs", 1, "--distil-epochs", 1, "--teachers", 1, "--unlabelled", "many.txt")
    for out, more in (("model", ["--distil", encoder]), ("other", [])):
        assert run("train", files[0], "--out", out, *options, *more).status == 0
    saved, other = load_model("model"), load_model("other")
    assert isinstance(saved.model, MLPClassifier)
    assert isinstance(other.model, MLPClassifier)
    assert saved.extra["start"]["sentence encoder"] == str(encoder)
    assert torch.equal(saved.model.token_weights, other.model.token_weights)
    assert not torch.equal(saved.model.fc.weight, other.model.fc.weight)


@pytest.fixture
def stopped(run: Run, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training that has learnt from the encoder, and was stopped then; beside a model that was there before."""
    assert run("train", TOY, "--out", "model", *SMALL).status == 0
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "fit_by_layers", _interrupt)
        ran = run("train", TOY, "--out", "model", *SMALL, "--distil", encoder, "--overwrite")
    assert ran.status == 130
    assert "--resume goes on from " in ran.err
    return Path("model.training/distilled.safetensors")


def _interrupt(*args: Any, **options: Any) -> None:
    raise KeyboardInterrupt


def test_resume_takes_what_was_learnt(run: Run, encoder: Path, stopped: Path) -> None:
    """And does not take the model that was there before for its end."""
    options = (TOY, *SMALL, "--distil", encoder)
    ran = run("train", *options, "--out", "model", "--resume")
    assert (ran.status, "reads the" in ran.out, "the training is over" in ran.out) == (0, False, False)
    assert "have a mean cosine of 0." in ran.out
    assert load_model("model").extra["start"]["sentence encoder"] == str(encoder)
    assert run("train", *options, "--out", "whole").status == 0
    whole, model = map(_weights, ("whole", "model"))
    assert all(whole[name].equal(model[name]) for name in whole)


def test_resume_without_what_was_learnt(
    run: Run, encoder: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The language model reads the texts once more, unless it is to learn from the encoder, and has."""
    small = ("--embedding-dim", 8, "--hidden-dim", 8, "--batch-size", 4, "--steps", 10, "--min-frequency", 1)
    assert run("pretrain", "many.txt", "--out", "lm", "--epochs", 1, "--held-out", 0.1, *small).status == 0
    options = ("train", files[0], "--out", "model", "--from", "lm", "--preset", "transfer", "--epochs", 1)
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "fit_by_layers", _interrupt)
        assert run(*options, "--distil", encoder).status == 130
        ran = run(*options, "--distil", encoder, "--resume")
        assert (ran.status, "lm: reads the" in ran.out) == (130, False)
    assert "lm: reads the" in run(*options, "--resume").out


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        (("--distil-epochs", 3), "with distillation {"),
        (("--hidden-dim", 9), "with model {"),
        (("--seed", 1), "with distillation {"),
    ],
)
def test_resume_with_other_options(
    run: Run, encoder: Path, stopped: Path, options: tuple[object, ...], differs: str
) -> None:
    ran = run("train", TOY, "--out", "model", *SMALL, "--distil", encoder, *options, "--resume")
    assert ran.status == 2
    assert f"distilled.safetensors: is of a training {differs}" in ran.err.splitlines()[-1]


def test_what_is_unfinished_is_not_thrown_away(run: Run, encoder: Path, stopped: Path) -> None:
    shutil.rmtree("model")
    ran = run("train", TOY, "--out", "model", *SMALL, "--distil", encoder)
    assert (ran.status, "holds an unfinished training: --resume" in ran.err) == (2, True)
    assert stopped.exists()


def test_a_damaged_file(run: Run, encoder: Path, stopped: Path) -> None:
    stopped.write_bytes(b"nonsense")
    ran = run("train", TOY, "--out", "model", *SMALL, "--distil", encoder, "--resume")
    assert ran.status == 2
    assert "distilled.safetensors: cannot be read" in ran.err.splitlines()[-1]


def test_a_new_training_begins_anew(run: Run, encoder: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier one has left is gone before something new is kept."""
    Path("model.training/guesses.safetensors").write_bytes(b"of the earlier one")
    monkeypatch.setattr(training_run, "fit_by_layers", _interrupt)
    options = ("--out", "model", *SMALL, "--distil", encoder, "--distil-epochs", 3, "--overwrite")
    assert run("train", TOY, *options).status == 130
    assert {path.name for path in Path("model.training").iterdir()} == {"distilled.safetensors", "log.jsonl"}
    monkeypatch.undo()


def test_no_such_encoder(run: Run) -> None:
    ran = run("train", TOY, "--out", "model", *SMALL, "--distil", "nowhere")
    assert ran.status == 2
    assert ran.err.splitlines()[-1].startswith("error: there is no directory 'nowhere', and no sentence encoder")
    assert ran.out == ""  # before the work
    assert not Path("model").exists()


def test_it_is_listed(run: Run) -> None:
    assert "Sentence encoders, to learn from:\nminilm: a transformer of 6 layers" in run("data").out

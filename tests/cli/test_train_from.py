"""`textclf-fast train --from` a language model."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.conftest import TOY, Run

from textclf_fast.models import TextClassifier
from textclf_fast.training import load_model


def test_train_and_predict(run: Run, tmp_path: Path, language_model: Path) -> None:
    ran = run("train", TOY, "--from", language_model, "--out", "model", "--epochs", 4, "--dropout", 0.1, "--lr", 0.02)
    assert ran.status == 0
    assert ran.out.splitlines()[0] == f"{language_model}: reads the 160 texts to train on, 3 times"
    saved = load_model(tmp_path / "model")
    assert isinstance(saved.model, TextClassifier)
    expected = {"embedding_dim": 12, "hidden_dim": 16, "bidirectional": True, "pooling": "concat", "dropout": 0.1}
    assert expected.items() <= saved.model.config.items()
    assert saved.extra["start"]["language model"] == str(language_model)
    assert f"| its texts | {TOY} |" in (tmp_path / "model" / "README.md").read_text()
    (tmp_path / "texts.txt").write_text("the food was good\n")
    assert run("predict", "model", "texts.txt").status == 0


def test_resume_thaws_the_same_layers(
    run: Run, tmp_path: Path, language_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second epoch, with the embedding still frozen, it ends with the bits of one that was not."""
    args = ["train", TOY, "--from", language_model, "--epochs", 3, "--lm-epochs", 1, "--keep", "last", "--gradual"]
    assert run(*args, "--out", "whole").status == 0
    calls = 0
    batch = __import__("textclf_fast.training.encoded", fromlist=["EncodedTexts"]).EncodedTexts.batch

    def stop(self: object, *rest: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 10:  # 5 steps and 2 batches of the evaluation an epoch
            raise KeyboardInterrupt
        return batch(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("textclf_fast.training.encoded.EncodedTexts.batch", stop)
        assert run(*args, "--out", "parts").status == 130
    ran = run(*args, "--out", "parts", "--resume")
    assert (ran.status, "reads the" in ran.out) == (0, False)  # whose weights it has already
    assert load_model("parts").extra["start"]["times it read the texts to train on"] == 1
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    "option", ["--pooling max", "--weight-dropout 0.5", "--hidden-dim 64", "--tokenizer character"]
)
def test_what_the_language_model_decides(run: Run, language_model: Path, option: str) -> None:
    ran = run("train", TOY, "--from", language_model, "--out", "model", *option.split())
    assert ran.status == 2
    assert option.split()[0] in ran.err
    assert "comes from the language model" in ran.err


def test_for_an_lstm_alone(run: Run, language_model: Path) -> None:
    ran = run("train", TOY, "--from", language_model, "--model", "mlp", "--out", "new")
    assert (ran.status, ran.out) == (2, "")
    assert "expected lstm with --from, got mlp" in ran.err


def test_a_classifier_is_no_language_model(run: Run, model: Path) -> None:
    ran = run("train", TOY, "--from", model, "--out", "new")
    assert ran.status == 2
    assert "not the configuration of a textclf_fast language model" in ran.err

"""`textclf-fast train --vectors` and `pretrain --vectors`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli.conftest import TOY, Run
from tiny_encoder import encoder as encoder

from textclf_fast.cli import tuning_run
from textclf_fast.models import MLPClassifier, TextClassifier
from textclf_fast.training import autotune, load_model
from textclf_fast.training.language_model_files import load_language_model


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    path = tmp_path / "small.vec"
    path.write_text("4 3\nfood 1 2 3\nservice 4 5 6\nzeppelin 7 8 9\nbalalaika 1 0 1\n")
    return path


def test_train(run: Run, tmp_path: Path, vectors: Path) -> None:
    ran = run("train", TOY, "--out", "model", "--vectors", vectors, "--embedding-dim", 5, "--epochs", 1, "--lr", 1e-6)
    assert ran.status == 0
    assert f"{vectors}: has vectors of 2 of the " in ran.out
    assert "2 other words join the vocabulary" in ran.out
    saved = load_model(tmp_path / "model")
    assert isinstance(saved.model, TextClassifier)
    assert saved.model.config["embedding_dim"] == 5
    assert saved.extra["start"]["word vectors"] == str(vectors)
    assert f"| word vectors | {vectors} |" in (tmp_path / "model" / "README.md").read_text()
    ids = saved.vocabulary.encode(["food", "zeppelin", "balalaika"])
    assert ids.tolist()[1:] == [len(saved.vocabulary) - 2, len(saved.vocabulary) - 1]
    rows = saved.model.embedding.weight[ids.tolist()].tolist()
    assert rows[0][:3] == pytest.approx([1, 2, 3], abs=1e-3)
    assert rows[1] == [7, 8, 9, 0, 0]
    assert rows[2] == [1, 0, 1, 0, 0]


def test_as_wide_as_the_vectors_at_least(run: Run, tmp_path: Path, vectors: Path) -> None:
    args = ["--vectors", vectors, "--embedding-dim", 2, "--epochs", 1, "--model", "mlp"]
    assert run("train", TOY, "--out", "model", *args).status == 0
    saved = load_model(tmp_path / "model")
    assert isinstance(saved.model, MLPClassifier)
    assert saved.model.config["embedding_dim"] == 3


def test_several_and_an_encoder(run: Run, vectors: Path, encoder: Path) -> None:
    """The numbers of all beside each other."""
    args = ["--vectors", vectors, "--vectors", encoder, "--epochs", 1, "--embedding-dim", 2, "--vocab-size", 320]
    ran = run("train", TOY, "--out", "model", *args)
    assert (ran.status, ran.err) == (0, "")
    assert f"{vectors} and {encoder}: have vectors of " in ran.out
    saved = load_model("model")
    assert saved.model.config["embedding_dim"] == 3 + 16
    assert saved.extra["start"]["word vectors"] == f"{vectors}; {encoder}"
    small = ["--batch-size", 4, "--steps", 10, "--min-frequency", 1, "--held-out", 0.1, "--epochs", 1]
    ran = run("pretrain", TOY, "--out", "lm", "--embedding-dim", 20, "--hidden-dim", 8, *small, *args[:4])
    assert (ran.status, ran.err) == (0, "")
    assert f"{vectors} and {encoder}: have vectors of " in ran.out
    assert load_language_model("lm").extra["vectors"] == f"{vectors} and {encoder}"


def test_one_twice(run: Run, vectors: Path) -> None:
    ran = run("train", TOY, "--out", "model", "--vectors", vectors, "--vectors", vectors)
    assert (ran.status, ran.out) == (2, "")
    assert "Invalid value for '--vectors': sources: expected at least one, and each once, got [" in ran.err


def test_lr_find(run: Run, vectors: Path) -> None:
    ran = run("lr-find", TOY, "--vectors", vectors, "--steps", 5, "--hidden-dim", 8)
    assert (ran.status, ran.err) == (0, "")
    assert float(ran.out) > 0


def test_autotune(run: Run, tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All trials begin with them, and are as wide as they are at least."""
    seen: list[list[float]] = []
    monkeypatch.setattr(tuning_run, "_DEFAULTS", {"embedding_dim": 2, "hidden_dim": 8})
    fit = autotune.train_epochs

    def watched(model: TextClassifier, *args: Any) -> Any:
        seen.append(model.embedding.weight[-1].tolist())
        return fit(model, *args)

    monkeypatch.setattr(autotune, "train_epochs", watched)
    ran = run("autotune", TOY, "--out", "model", "--minutes", 1e-4, "--vectors", vectors)
    assert ran.status == 0, ran.err
    assert all(row[:3] == [1, 0, 1] for row in seen)  # balalaika's
    saved = load_model(tmp_path / "model")
    assert saved.model.config["embedding_dim"] == 3
    assert f"| word vectors | {vectors} |" in (tmp_path / "model" / "README.md").read_text()


def test_the_vocabulary_is_full(run: Run, tmp_path: Path, vectors: Path) -> None:
    with vectors.open("a") as file:
        file.write("the 1 1 1\n")
    ran = run("train", TOY, "--out", "model", "--vectors", vectors, "--vocab-size", 20, "--epochs", 1)
    assert "0 other words join the vocabulary" in ran.out
    assert len(load_model(tmp_path / "model").vocabulary) == 20


def test_pretrain(run: Run, tmp_path: Path, vectors: Path) -> None:
    small = ["--embedding-dim", 2, "--hidden-dim", 16, "--batch-size", 4, "--steps", 10, "--min-frequency", 1]
    args = ["--held-out", 0.1, "--epochs", 1, "--lr", 1e-6]
    ran = run("pretrain", TOY, "--out", "lm", "--vectors", vectors, *small, *args)
    assert ran.status == 0
    assert f"{vectors}: has vectors of 2 of the " in ran.out
    saved = load_language_model(tmp_path / "lm")
    assert saved.model.config["embedding_dim"] == 3
    assert saved.extra["vectors"] == str(vectors)
    assert "zeppelin" not in saved.vocabulary
    food, service = saved.model.encoder.embedding.weight[saved.vocabulary.encode(["food", "service"]).tolist()]
    ratio = food.tolist()[0] / 1
    assert food.tolist() == pytest.approx([ratio, 2 * ratio, 3 * ratio], rel=0.01)
    assert service.tolist() == pytest.approx([4 * ratio, 5 * ratio, 6 * ratio], rel=0.01)


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_no_such_vectors(run: Run, command: str) -> None:
    ran = run(command, TOY, "--out", "out", "--vectors", "nothing")
    assert ran.status == 2
    assert ran.err.splitlines()[-1].endswith(
        "there is no file nothing, no word vectors of that name, as glove is, and no sentence encoder, as minilm is"
    )


def test_no_word_of_the_texts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("xyzzy 1 2\n")
    ran = run("train", TOY, "--out", "out", "--vectors", "other.txt")
    assert ran.status == 2
    assert "none of the" in ran.err
    assert not (tmp_path / "out").exists()


def test_a_bag_without_an_embedding(run: Run, vectors: Path) -> None:
    ran = run("train", TOY, "--out", "out", "--vectors", vectors, "--model", "mlp", "--embedding-dim", 0)
    assert ran.status == 2
    assert "--embedding-dim other than 0" in ran.err

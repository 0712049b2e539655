from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import textclf_fast
from textclf_fast.cli.presets import PRESETS
from textclf_fast.cli.train import train
from textclf_fast.text import read_labelled
from textclf_fast.training import load_model

TOY = Path(__file__).parents[1] / "text" / "toy.csv"
SMALL = ("--embedding-dim", 8, "--hidden-dim", 8, "--epochs", 2)


def test_trains_and_says_so(run: Any, tmp_path: Path) -> None:
    ran = run("train", TOY, "--out", "model", *SMALL)
    assert (ran.status, ran.err) == (0, "")
    first, epoch_1, epoch_2, saved, use = ran.out.splitlines()
    assert first == "200 texts, 2 classes; 160 to train on, 40 held out; vocabulary of 310"
    assert epoch_1.startswith("epoch 1/2: loss 0.")
    for word in ("held-out accuracy", "macro-F1", " s, ", "tokens/s"):
        assert word in epoch_2
    assert saved.startswith("model: the model of epoch ")
    assert use.endswith("textclf-fast predict model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_model_is_good(model: Path) -> None:
    data = read_labelled(TOY)
    predicted = textclf_fast.load(model).predict(data.texts)
    right = sum(ours == theirs for ours, theirs in zip(predicted, data.labels, strict=True))
    assert right >= 0.85 * len(data)  # a fifth of them was held out


def test_options_arrive(run: Any) -> None:
    options = ["--layers", 2, "--bidirectional", "--dropout", 0.1, "--vocab-size", 50, "--held-out", 0.5, "--seed", 7]
    options += ["--pooling", "max", "--embedding-dropout", 0.2, "--weight-dropout", 0.3, "--schedule", "one-cycle"]
    options += ["--weight-decay", 0.1, "--clip-norm", 2, "--label-smoothing", 0.05, "--class-weights", "negative=3"]
    options += ["--patience", 4, "--monitor", "loss", "--keep", "last", "--bf16", "--deterministic"]
    options += ["--adversarial", 0.3, "--embedding-std", 0.25]
    ran = run("train", TOY, "--out", "model", *SMALL, *options, "--lr", 0.02, "--batch-size", 20)
    assert ran.status == 0, ran.err
    assert "100 to train on, 100 held out; vocabulary of 50" in ran.out
    saved = load_model("model")
    assert saved.model.config == {
        "vocab_size": 50,
        "embedding_dim": 8,
        "hidden_dim": 8,
        "output_dim": 2,
        "num_layers": 2,
        "bidirectional": True,
        "dropout": 0.1,
        "padding_idx": 0,
        "batch_first": False,
        "sparse": True,
        "pooling": "max",
        "embedding_dropout": 0.2,
        "weight_dropout": 0.3,
        "variational_dropout": 0.0,
        "embedding_std": 0.25,
        "proj_size": 0,
    }
    kept = saved.extra["options"]
    assert (kept["epochs"], kept["batch_size"], kept["learning_rate"], kept["seed"]) == (2, 20, 0.02, 7)
    assert len(saved.extra["epochs"]) == 2
    assert kept["schedule"]["kind"] == "one-cycle"
    assert {
        "adversarial": 0.3,
        "weight_decay": 0.1,
        "clip_norm": 2,
        "label_smoothing": 0.05,
        "class_weights": [3, 1],
        "patience": 4,
        "monitor": "loss",
        "keep": "last",
        "bfloat16": True,
        "deterministic": True,
    }.items() <= kept.items()
    assert "the model of epoch 2," in ran.out


@pytest.mark.parametrize(("kind", "size"), [("word", 300), ("character", 300), ("bpe", 400)])
def test_tokenizers(run: Any, kind: str, size: int) -> None:
    if kind == "bpe":
        pytest.importorskip("tokenizers")
    ran = run("train", TOY, "--out", "model", *SMALL, "--tokenizer", kind, "--vocab-size", size)
    assert ran.status == 0
    assert load_model("model").tokenizer.config["kind"] == kind
    assert len(textclf_fast.load("model").predict(["a lovely garden"])) == 1


def test_vocabulary_too_small_for_bpe(run: Any) -> None:
    pytest.importorskip("tokenizers")
    ran = run("train", TOY, "--out", "model", *SMALL, "--tokenizer", "bpe", "--vocab-size", 257)
    assert ran.status == 2
    assert "vocab_size: expected at least 258, of which 256 are bytes, got 257" in ran.err


def test_same_seed_same_model(run: Any) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run("train", TOY, "--out", name, "--seed", seed, *SMALL).status == 0
    a, b, c = (load_model(name).model.fc.weight for name in "abc")
    assert torch.equal(a, b)
    assert (a - c).abs().max() > 0.1, "not only the batches, but the initial weights too are others"


def test_columns_and_groups(run: Any, tmp_path: Path) -> None:
    rows = [
        {"body": f"text {n} {'good' if n % 2 else 'bad'}", "mark": n % 2, "source": str(n // 10)} for n in range(50)
    ]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ("--text", "body", "--label", "mark", "--group", "source")
    ran = run("train", "notes.jsonl", "--out", "model", *columns, *SMALL)
    assert ran.status == 0
    assert "40 to train on, 10 held out" in ran.out
    assert load_model("model").labels == ["0", "1"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"body,label\na,yes\nb,no\n", ["'text'", "'body'", "'label'"]),
        (b"text,label\na,yes\n  ,no\n", ["row 2", "'text' is empty"]),
        (b"text,label\na,yes\nb,\n", ["row 2", "'label' is empty"]),
        (b"text,label\na,yes\nb,yes\n", ["'yes'", "two classes"]),
        (b"text,label\na,yes\n\xff\xfe,no\n", ["row 2", "UTF-8"]),
        (b"text,label\n", ["no rows"]),
        (b"", ["file.csv"]),
        (b"text,label\na,yes\nb,yes\nc,no\n", ["all labelled", "too few"]),
        (None, ["no such file"]),
    ],
)
def test_bad_files(run: Any, tmp_path: Path, content: bytes | None, words: list[str]) -> None:
    if content is not None:
        (tmp_path / "file.csv").write_bytes(content)
    ran = run("train", "file.csv", "--out", "model", "--held-out", 0.34)
    assert ran.status == 2
    assert ran.err.startswith("error: file.csv: ")
    assert ran.err.count("\n") == 1
    for word in words:
        assert word in ran.err
    assert not (tmp_path / "model").exists()


def test_unknown_suffix(run: Any) -> None:
    ran = run("train", "rt2", "--out", "model")
    assert ran.status == 2
    assert ".csv, .tsv, .jsonl, " in ran.err


def test_existing_directory(run: Any, tmp_path: Path) -> None:
    assert run("train", TOY, "--out", "model", *SMALL).status == 0
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    ran = run("train", TOY, "--out", "model", *SMALL, "--seed", 1)
    assert ran.status == 2
    assert ran.err == (
        f"error: {tmp_path / 'model'}: is there and not empty; another directory, or overwrite the model in it\n"
    )
    assert ran.out == "", "it must be said before the training"
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert run("train", TOY, "--out", "model", *SMALL, "--seed", 1, "--overwrite").status == 0
    assert (tmp_path / "model" / "model.safetensors").read_bytes() != before


def test_other_peoples_files_are_not_overwritten(run: Any, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    ran = run("train", TOY, "--out", "home", "--overwrite", *SMALL)
    assert ran.status == 2
    assert "thesis.tex" in ran.err
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


def test_diverging(run: Any, tmp_path: Path) -> None:
    ran = run("train", TOY, "--out", "model", "--lr", "1e38", *SMALL)
    assert ran.status == 2
    assert "try a lower learning rate" in ran.err
    assert not (tmp_path / "model").exists()


def test_perceptron(run: Any) -> None:
    assert run("train", TOY, "--out", "model", *SMALL, "--model", "mlp", "--layers", 2).status == 0
    assert load_model("model").model.kind == "mlp"


def test_presets_are_defaults(run: Any) -> None:
    """What is said in so many words holds, wherever it stands."""
    assert run("train", TOY, "--out", "model", "--epochs", 1, "--preset", "bag", "--hidden-dim", 8).status == 0
    saved = load_model("model")
    config, options = saved.model.config, saved.extra["options"]
    assert (saved.model.kind, config["embedding_dim"], config["activation"]) == ("mlp", None, "relu")
    assert (config["hidden_dim"], options["epochs"]) == (8, 1)
    assert (options["learning_rate"], options["schedule"]["kind"]) == (0.004, "one-cycle")
    assert config["token_weights"]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_presets_are_options_of_train(preset: dict[str, Any]) -> None:
    assert preset.keys() <= inspect.signature(train).parameters.keys()


def test_unknown_preset(run: Any) -> None:
    ran = run("train", TOY, "--out", "model", "--preset", "best")
    assert ran.status == 2
    assert "'best' is not one of 'little-data', 'bag', 'transfer'" in ran.err


def test_perceptron_on_the_bag_of_ngrams(run: Any) -> None:
    options = ["--model", "mlp", "--embedding-dim", 0, "--hidden-dim", 8, "--activation", "relu", "--idf"]
    assert run("train", TOY, "--out", "model", *options, "--tokenizer", "ngram", "--epochs", 1).status == 0
    saved = load_model("model")
    assert (saved.model.config["embedding_dim"], saved.model.config["activation"]) == (None, "relu")
    assert "~good>" in saved.vocabulary
    weights = saved.model.token_weights
    often, seldom = (saved.vocabulary.encode([token])[0] for token in (".", "~good>"))
    assert 1 < weights[often] < weights[seldom]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--activation", "relu"], "'--activation': is for --model mlp, not lstm"),
        (["--embedding-dim", 0], "'--embedding-dim': expected at least 1 with --model lstm, got 0"),
        (["--model", "mlp", "--pooling", "max"], "'--pooling': is for --model lstm, not mlp"),
    ],
)
def test_options_of_the_other_model(run: Any, options: list[Any], message: str) -> None:
    ran = run("train", TOY, "--out", "model", *options)
    assert ran.status == 2
    assert message in ran.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("heavy", "expected 'balanced' or LABEL=NUMBER"),
        ("maybe=2", "label 'maybe' is none of"),
        ("negative=x", "'x'"),
        ("negative=-1", "0 or more"),
    ],
)
def test_bad_class_weights(run: Any, tmp_path: Path, given: str, message: str) -> None:
    ran = run("train", TOY, "--out", "model", *SMALL, "--class-weights", given)
    assert ran.status == 2
    assert ran.err.count("\n") == 1
    assert "--class-weights" in ran.err
    assert message in ran.err
    assert not list(tmp_path.iterdir())


def test_json(run: Any) -> None:
    ran = run("train", TOY, "--out", "model", *SMALL, "--json")
    assert (ran.status, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["model"], found["options"]["epochs"], len(found["epochs"])) == ("model", 2, 2)
    assert found["accuracy"] == found["epochs"][found["epoch"] - 1]["held_out"]["accuracy"]


def test_the_log_stays_with_the_model(run: Any) -> None:
    run("train", TOY, "--out", "model", *SMALL)
    start, *others = map(json.loads, Path("model/log.jsonl").read_text().splitlines())
    assert [line["event"] for line in others] == ["steps", "epoch", "steps", "epoch", "end"]
    assert start["options"]["epochs"] == 2
    assert start["model"]["kind"] == "lstm"
    assert start["machine"]["torch"] == torch.__version__
    assert start["data"] == str(TOY)


def test_without_tensorboard(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    ran = run("train", TOY, "--out", "model", *SMALL, "--tensorboard", "board")
    assert ran.status == 2
    assert "--tensorboard" in ran.err
    assert "pip install 'textclf_fast[tensorboard]'" in ran.err
    assert ran.err.count("\n") == 1


def test_resume(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("train", TOY, "--out", "model", *SMALL)
    assert run(*command[:3], "once", *SMALL, "--resume").status == 0, "with nothing to go on with, it begins"

    def interrupted(*unused: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("textclf_fast.cli.training_run.save_model", interrupted)
        assert run(*command).status == 130  # trained, not written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.training", "once"]
    ran = run(*command)
    assert ran.status == 2
    assert ran.err == (
        f"error: {tmp_path / 'model.training'}: holds an unfinished training: --resume goes on with it, "
        "--overwrite begins anew\n"
    )
    assert "with epochs 2, not 3" in run(*command, "--epochs", 3, "--resume").err
    ran = run(*command, "--resume")
    assert ran.status == 0
    assert "\ngoes on in epoch 3, after step 0\n" in ran.out
    ours, theirs = (Path(name, "model.safetensors").read_bytes() for name in ("model", "once"))
    assert ours == theirs
    assert run(*command, "--resume").out == "model: the training is over\n"
    assert json.loads(run(*command, "--resume", "--json").out) == {"model": "model", "over": True}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "once"]


def test_full_disk(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(unused: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    ran = run("train", TOY, "--out", "model", *SMALL)
    assert ran.status == 2
    path = tmp_path / "model.training" / "checkpoint.safetensors"
    assert ran.err == f"error: {path}: this checkpoint could not be written (No space left on device)\n"


def test_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "textclf_fast", "train", str(TOY), "--out", "model", "--epochs", "100000"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        while "epoch 1/" not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    checkpoint = tmp_path / "model.training" / "checkpoint.safetensors"
    assert err == f"note: the same command with --resume goes on from {checkpoint.parent}\nerror: interrupted\n"
    assert process.returncode == 130
    assert checkpoint.exists()
    assert list(tmp_path.iterdir()) == [checkpoint.parent]

"""A training that was stopped goes on to the same bits, wherever it was stopped."""

from __future__ import annotations

import io
import json
import os
import pickletools
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import killed_training
import pytest
import torch
from torch import Tensor

import textclf_fast
from textclf_fast.text import DataError
from textclf_fast.training import Checkpoints, EncodedTexts, History, Schedule, TrainingOptions, fit

PLAIN = TrainingOptions(epochs=3, batch_size=16)  # 13 steps an epoch
EVERYTHING = TrainingOptions(
    epochs=3,
    batch_size=16,
    schedule=Schedule("one-cycle"),
    weight_decay=0.1,
    clip_norm=0.5,
    label_smoothing=0.1,
    class_weights="balanced",
    patience=2,
    monitor="loss",
    keep="last",
    bfloat16=True,
)


class Stopped(Exception):
    pass


def train(
    toy: Any, options: TrainingOptions, checkpoints: Checkpoints | None = None, stop: int | None = None, **model: Any
) -> tuple[list[Tensor], History]:
    """Weights and history; Stopped after `stop` steps."""
    classifier = toy.model(**{"dropout": 0.3, "sparse": True, **model})
    steps = 0

    def on_step(unused: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == stop:
            raise Stopped

    history = fit(classifier, toy.data, toy.data, options, on_step, checkpoints=checkpoints)
    return list(classifier.state_dict().values()), history


def numbers(history: History) -> list[Any]:
    return [([(step.loss, step.tokens) for step in result.steps], result.held_out) for result in history.epochs]


@pytest.mark.parametrize(
    ("options", "model"),
    [
        (PLAIN, {}),
        (EVERYTHING, {}),
        (TrainingOptions(epochs=3, batch_size=16, fused_adam=False, bucket=False), {"sparse": False}),
        (PLAIN, {"sparse": False, "num_layers": 2, "bidirectional": True, "pooling": "concat"}),
    ],
)
def test_same_bits_wherever_it_was_stopped(
    tmp_path: Path, toy: Any, options: TrainingOptions, model: dict[str, Any]
) -> None:
    want, history = train(toy, options, **model)
    path = tmp_path / "checkpoint"
    places: list[tuple[int, int]] = []
    for stop in (2, 8, 6, 13, 4, 12):
        with pytest.raises(Stopped):
            train(toy, options, Checkpoints(path, 3, True, lambda *place: places.append(place)), stop, **model)
    got, gone_on = train(toy, options, Checkpoints(path, 3, True, lambda *place: places.append(place)), **model)
    # Of 39 steps: stopped in step 2, with no checkpoint; in step 8, after that of step 6; in 6 + 6, after 9; in 9 + 13,
    # 21 + 4 and 24 + 12.
    assert places == [(0, 6), (0, 9), (1, 8), (1, 11), (2, 7)]
    assert numbers(gone_on) == numbers(history)
    assert all(map(torch.equal, got, want))


def test_over_is_over(tmp_path: Path, toy: Any) -> None:
    for options in (PLAIN, EVERYTHING):
        path = tmp_path / options.keep
        want, history = train(toy, options, Checkpoints(path))
        got, again = train(toy, options, Checkpoints(path, resume=True), stop=1)
        assert numbers(again) == numbers(history)
        assert all(map(torch.equal, got, want))


def test_without_resume_it_begins_anew(tmp_path: Path, toy: Any) -> None:
    train(toy, PLAIN, Checkpoints(tmp_path / "checkpoint"))
    with pytest.raises(Stopped):
        train(toy, PLAIN, Checkpoints(tmp_path / "checkpoint"), stop=1)


def test_the_checkpoint_is_safetensors(tmp_path: Path, toy: Any) -> None:
    train(toy, PLAIN, Checkpoints(tmp_path / "checkpoint"))
    content = (tmp_path / "checkpoint").read_bytes()
    with pytest.raises(ValueError, match=r"opcode|pickle"):
        pickletools.dis(content, out=io.StringIO())
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"]["format"] == "textclf_fast checkpoint"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


# ---- Signals ----


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_ends_it_after_the_step(tmp_path: Path, toy: Any, number: int, error: type[BaseException]) -> None:
    want, _ = train(toy, PLAIN)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    seen: list[int] = []

    def on_step(unused: Any) -> None:
        seen.append(1)
        if len(seen) == 17:
            os.kill(os.getpid(), number)

    places: list[tuple[int, int]] = []
    checkpoints = Checkpoints(tmp_path / "checkpoint", resume=True, on_resume=lambda *place: places.append(place))
    with pytest.raises(error) as caught:
        fit(toy.model(dropout=0.3, sparse=True), toy.data, toy.data, PLAIN, on_step, checkpoints=checkpoints)
    assert getattr(caught.value, "code", 143) == 143
    assert len(seen) == 17
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    got, _ = train(toy, PLAIN, checkpoints)
    assert places == [(1, 4)]
    assert all(map(torch.equal, got, want))


def test_the_second_ctrl_c_acts_at_once(tmp_path: Path, toy: Any) -> None:
    def on_step(unused: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(toy.model(), toy.data, toy.data, PLAIN, on_step, checkpoints=Checkpoints(tmp_path / "checkpoint"))
    assert not (tmp_path / "checkpoint").exists()


def test_in_a_thread(tmp_path: Path, toy: Any) -> None:
    thread = threading.Thread(target=train, args=(toy, PLAIN, Checkpoints(tmp_path / "checkpoint")))
    thread.start()
    thread.join()
    assert (tmp_path / "checkpoint").exists()


# ---- A disk that is full ----


def test_full_disk(tmp_path: Path, toy: Any) -> None:
    """The limit on the size of a file stands for the disk's: a real error in the middle of a write."""
    path = tmp_path / "checkpoint"
    with pytest.raises(Stopped):
        train(toy, PLAIN, Checkpoints(path, 5), stop=7)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        with pytest.raises(
            OSError, match=r"checkpoint: this checkpoint could not be written \(File too large\); "
        ) as caught:
            train(toy, PLAIN, Checkpoints(path, 5, resume=True))
        assert "\n" not in str(caught.value)
        with pytest.raises(OSError, match=r"other: this checkpoint could not be written \(File too large\)$"):
            train(toy, PLAIN, Checkpoints(tmp_path / "other", 5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [name.name for name in tmp_path.iterdir()] == ["checkpoint"]
    got, _ = train(toy, PLAIN, Checkpoints(path, resume=True))
    assert all(map(torch.equal, got, train(toy, PLAIN)[0]))


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_other_errors_leave_the_one_before(
    tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "checkpoint"
    train(toy, PLAIN, Checkpoints(path))
    before = path.read_bytes()

    def fail(*unused: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, fail)
    with pytest.raises(OSError, match="No space left on device"):
        train(toy, PLAIN, Checkpoints(path))
    assert path.read_bytes() == before
    assert [name.name for name in tmp_path.iterdir()] == ["checkpoint"]


# ---- Files that are none ----


def rewrite(path: Path, metadata: dict[str, str] | None = None, **tensors: Tensor | None) -> None:
    """With other metadata or tensors (None: without)."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, framework="pt") as file:
        known = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kept = file.metadata()
    known.update(tensors)  # type: ignore[arg-type]
    save_file({name: t for name, t in known.items() if t is not None}, path, {**kept, **(metadata or {})})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", "cannot be read, or is cut short"),
        ("empty", "cannot be read, or is cut short"),
        ("text", "cannot be read, or is cut short"),
        ("foreign", "not a textclf_fast checkpoint"),
        ("future", "is of format version 2, expected 1"),
        ("no JSON", "not a checkpoint: "),
        ("no history", "not a checkpoint: there is no word of its training"),
        ("no weight", "is not a checkpoint of this model: expected weights"),
        ("no steps", "is not a checkpoint of this model: 'steps.loss'"),
        ("other backlog", "is not a checkpoint of this model: done: expected shape"),
        ("other moments", "is not a checkpoint of this model: the moments of fc.bias"),
    ],
)
def test_damaged(tmp_path: Path, toy: Any, how: str, message: str) -> None:
    path = tmp_path / "checkpoint"
    train(toy, TrainingOptions(epochs=1, batch_size=100), Checkpoints(path, 1))
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("text,label\na,b\n" * 100)
    elif how == "foreign":
        rewrite(path, {"format": "something else"})
    elif how == "future":
        rewrite(path, {"format_version": "2"})
    elif how == "no JSON":
        rewrite(path, {"entries": "{"})
    elif how == "no history":
        rewrite(path, {"entries": "{}"})
    elif how == "no weight":
        rewrite(path, **{"model.fc.bias": None})
    elif how == "no steps":
        rewrite(path, **{"steps.loss": None})
    elif how == "other backlog":
        name = "backlog.encoder.embedding.weight"
        rewrite(
            path, **{f"{name}.done": torch.zeros(3, dtype=torch.int64), f"{name}.history": torch.zeros(1, 8).double()}
        )
    elif how == "other moments":
        rewrite(path, **{"optimizer.fc.bias.exp_avg": torch.zeros(3)})
    with pytest.raises(DataError, match=message) as caught:
        train(toy, TrainingOptions(epochs=1, batch_size=100), Checkpoints(path, resume=True))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_another_training(tmp_path: Path, toy: Any) -> None:
    path = tmp_path / "checkpoint"
    options = TrainingOptions(epochs=1, batch_size=100)
    train(toy, options, Checkpoints(path))
    for other, message in (
        (TrainingOptions(epochs=1, batch_size=50), "of a training with batch_size 100, not 50"),
        (TrainingOptions(epochs=1, batch_size=100, schedule=Schedule("one-cycle")), "with schedule .*constant"),
    ):
        with pytest.raises(DataError, match=message):
            train(toy, other, Checkpoints(path, resume=True))
    for changed, message in (
        ({"num_layers": 2}, "with model.num_layers 1, not 2"),
        ({"dropout": 0}, "dropout 0.3, not 0"),
    ):
        with pytest.raises(DataError, match=message):
            train(toy, options, Checkpoints(path, resume=True), **changed)
    tokens, labels = toy.data.tokens, toy.data.labels
    weights = torch.ones(len(tokens), dtype=torch.float64)
    for data in (EncodedTexts(tokens, 1 - labels), EncodedTexts(tokens, labels, weights)):
        model = toy.model(dropout=0.3, sparse=True)
        with pytest.raises(DataError, match="is of a training on other texts, labels or weights"):
            fit(model, data, data, options, checkpoints=Checkpoints(path, resume=True))


def test_bad_interval(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every: expected at least 1, got 0"):
        Checkpoints(tmp_path / "checkpoint", every=0)


# ---- kill -9 ----


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_killed_again_and_again(tmp_path: Path, command: str) -> None:
    """The program, killed at random moments, by SIGINT and by SIGTERM, goes on to the same files."""
    path = os.pathsep.join([str(Path(textclf_fast.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, killed_training.__file__, str(tmp_path), command],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    statuses = [int(word) for word in (tmp_path / "statuses").read_text().split()]
    assert statuses == [0, *[-signal.SIGKILL] * killed_training.KILLS, 130, 143, 0], done.stdout + done.stderr
    assert done.stderr.count("the same command with --resume goes on") == 2
    assert done.stderr.count("error: interrupted\n") == 1
    once, often = tmp_path / "once", tmp_path / "often"
    assert (often / "model.safetensors").read_bytes() == (once / "model.safetensors").read_bytes()
    found = []
    for folder in (once, often):
        epochs = json.loads((folder / "config.json").read_bytes())["extra"]["epochs"]
        found.append([(epoch["loss"], epoch["held_out" if command == "train" else "perplexity"]) for epoch in epochs])
    assert found[0] == found[1]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["often", "once", "statuses"]
    if command == "pretrain":
        assert done.stdout.count("goes on in epoch ") == len(statuses) - 2
        return
    events = [json.loads(line)["event"] for line in (often / "log.jsonl").read_text().splitlines()]
    assert events.count("resume") == len(statuses) - 2
    assert events[-1] == "end"

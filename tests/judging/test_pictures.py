from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from textclf_fast.judging import Judgement
from textclf_fast.judging.pictures import PICTURES, draw_all, draw_confusion, draw_curves, draw_learning, read_log

pytest.importorskip("matplotlib")


def judgement(classes: int, size: int = 300) -> Judgement:
    generator = torch.Generator().manual_seed(classes)
    truth = torch.randint(classes, (size,), generator=generator)
    logits = torch.randn(size, classes, generator=generator)
    logits[range(size), truth] += 2
    return Judgement.of([f"cl$ss {number} " + "long" * (number % 7) for number in range(classes)], logits, truth)


def write_log(path: Path) -> Path:
    """Of a training that was killed in its second epoch, and went on from the checkpoint of the first."""
    held_out = {"loss": 0.5, "accuracy": 0.8, "macro_f1": 0.7}
    lines = [
        {"event": "start", "steps_per_epoch": 10},
        {"event": "steps", "epoch": 1, "step": 10, "loss": 0.9},
        {"event": "epoch", "epoch": 1, "held_out": held_out},
        {"event": "steps", "epoch": 2, "step": 5, "loss": 0.7},
        '{"event": "ste',
        {"event": "resume", "epoch": 2, "step": 0},
        {"event": "steps", "epoch": 2, "step": 4, "loss": 0.65},
        {"event": "steps", "epoch": 2, "step": 5, "loss": 0.6},
        {"event": "steps", "epoch": 2, "step": 10, "loss": 0.5},
        {"event": "epoch", "epoch": 2, "held_out": {**held_out, "accuracy": 0.9}},
        {"event": "end"},
    ]
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_draws_all(tmp_path: Path) -> None:
    drawn = draw_all(judgement(2), write_log(tmp_path / "log.jsonl"), tmp_path / "new" / "pictures")
    assert [path.name for path in drawn] == list(PICTURES)
    for path in drawn:
        assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "new" / "pictures").iterdir())) == len(PICTURES)


@pytest.mark.parametrize("classes", [3, 60, 70])
def test_draws_what_there_is(tmp_path: Path, classes: int) -> None:
    drawn = draw_all(judgement(classes), tmp_path / "log.jsonl", tmp_path)
    assert [path.name for path in drawn] == ["confusion.png", "reliability.png"]


def test_each_cell_of_few_classes_has_its_number() -> None:
    found = judgement(6)
    axes = draw_confusion(found).axes[0]
    wanted = {(column, row): str(int(count)) for (row, column), count in _entries(found) if count}
    assert {(text.get_position()): text.get_text() for text in axes.texts} == wanted
    assert axes.get_yticklabels()[0].get_text() == r"cl\$ss 0"


def _entries(found: Judgement) -> list[tuple[tuple[int, int], int]]:
    counts = found.counts.tolist()
    return [((row, column), counts[row][column]) for row in range(len(counts)) for column in range(len(counts))]


def test_names_of_sixty_classes_do_not_overlap() -> None:
    figure = draw_confusion(judgement(60))
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 60
    for above, below in itertools.pairwise(boxes):
        assert above.y0 >= below.y1


def test_of_too_many_classes_those_with_most_mistakes() -> None:
    """70 classes of ten texts each; all are right but for one of each of the classes 0 to 59."""
    truth = torch.arange(70).repeat_interleave(10)
    predicted = truth.clone()
    predicted[torch.arange(60) * 10] = 0
    predicted[0] = 1
    logits = torch.nn.functional.one_hot(predicted, 70).float()
    axes = draw_confusion(Judgement.of([str(number) for number in range(70)], logits, truth)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [str(number) for number in range(60)]
    assert "the 60 of 70 classes with most mistakes" in axes.get_title()


def test_one_class_alone_has_no_curves() -> None:
    assert draw_curves(Judgement.of(["a", "b"], torch.randn(5, 2), torch.zeros(5, dtype=torch.int64))) is None


def test_a_log_with_a_crash_in_it(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl")
    steps, epochs = read_log(log.read_text().splitlines())
    assert steps == [(1.0, 0.9), (1.4, 0.65), (1.5, 0.6), (2.0, 0.5)]
    assert [epoch["held_out"]["accuracy"] for epoch in epochs] == [0.8, 0.9]
    figure = draw_learning(log)
    assert figure is not None
    training, held_out = figure.axes[0].lines
    assert training.get_ydata().tolist() == [0.9, 0.65, 0.6, 0.5]
    assert held_out.get_xdata().tolist() == [1, 2]


def test_a_log_without_an_epoch(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"event": "start", "steps_per_epoch": 10}\n')
    assert draw_learning(tmp_path / "log.jsonl") is None

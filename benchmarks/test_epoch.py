"""Whole epochs: the review sentences, and a job of the shape of IMDb's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cells import Cell, draw_ids
from benchmarks.report import Record, Row
from benchmarks.targets import EPOCH_LOOP, EPOCH_TRAINER, IMDB
from benchmarks.timing import seconds
from textclf_fast import TextClassifier
from textclf_fast.models import PlainTextClassifier
from textclf_fast.text import DataError, RaggedTokens, Vocabulary, WordTokenizer, load_dataset
from textclf_fast.training import EncodedTexts, EpochResult, TrainingOptions, train_epochs

EPOCHS = 3

# The job of https://github.com/pytorch/pytorch/issues/94457: 25,000 reviews, 98 steps an epoch, so batches of 256; the
# text of it that we have does not give the model, so its sizes here are ours to choose: V=10,000, E=128, H=128, reviews
# cut at 500 tokens, padded to the longest of the batch. A log-normal of IMDb's median length (174 words) and mean (233)
# has sigma = sqrt(2 ln(233 / 174)) = 0.76.
TEXTS, BATCH, CUT, MEDIAN, SIGMA = 25_000, 256, 500, 174, 0.76
SIZES = (10_000, 128, 128, 2)
# A step of nn.LSTM's packed path takes half a minute at this size: one has to do.
STEPS = {"padded": 20, "ours": 20, "packed": 1}
PUBLISHED = "739 s PyTorch, 201 s Keras, 135 s TensorFlow on the author's machine (published there, not measured here)"


@pytest.fixture(scope="module")
def reviews() -> tuple[EncodedTexts, int]:
    """The sentences to train on, and the size of their vocabulary.

    Raises:
        DataError: they are not in the cache and cannot be had.
    """
    data = load_dataset("rt", "train", say=lambda line: None)
    tokenizer = WordTokenizer()
    vocabulary = Vocabulary.build(map(tokenizer, data.texts), 10_000)
    return EncodedTexts.from_texts(data, data.classes, vocabulary, tokenizer), len(vocabulary)


def test_epoch_of_reviews(
    request: pytest.FixtureRequest, record: Record, unmeasured: Callable[[str, str], None]
) -> None:
    try:
        train, vocab_size = request.getfixturevalue("reviews")
    except DataError as error:
        for cell in (EPOCH_LOOP, EPOCH_TRAINER):
            unmeasured(cell, str(error))
        pytest.skip(str(error))
    sizes = (vocab_size, 100, 128, 2)
    usual = TrainingOptions(epochs=EPOCHS, layout="padded", bucket=False, fused_adam=False)
    entries: dict[str, tuple[nn.Module, TrainingOptions]] = {
        "padded": (PlainTextClassifier(*sizes, layout="padded"), usual),
        "packed": (PlainTextClassifier(*sizes, layout="packed"), usual),
        "loop": (TextClassifier(*sizes), usual),
        "trainer": (TextClassifier(*sizes, sparse=True), TrainingOptions(epochs=EPOCHS)),  # as `textclf-fast train`
    }
    few = EncodedTexts(_first(train, 32), train.labels[:32])  # the evaluation after an epoch is not timed
    trainings: dict[str, Iterator[EpochResult]] = {}
    for name, (model, options) in entries.items():
        model.load_state_dict(entries["padded"][0].state_dict())
        trainings[name] = train_epochs(model, train, few, options)
    times: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(EPOCHS):
        for name, training in trainings.items():
            times[name].append(next(training).seconds)
    median = {name: statistics.median(values) for name, values in times.items()}
    peers = {name: median[name] for name in ("padded", "packed")}
    record(Row("epoch", EPOCH_LOOP, "training", "s", median["loop"], peers, EPOCHS))
    record(Row("epoch", EPOCH_TRAINER, "training", "s", median["trainer"], peers, EPOCHS))


def _first(data: EncodedTexts, rows: int) -> RaggedTokens:
    return RaggedTokens.from_lists([data.tokens[row] for row in range(rows)])


def test_job_of_imdbs_shape(record: Record) -> None:
    generator = np.random.default_rng(0)
    batches = [_batch(generator) for _ in range(4)]
    models = {
        "padded": PlainTextClassifier(*SIZES, layout="padded"),
        "packed": PlainTextClassifier(*SIZES, layout="packed"),
        "ours": TextClassifier(*SIZES),
    }
    steps = {name: _stepper(model) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for name in ("padded", "ours"):  # warms up
        steps[name](*batches[-1])
    for number in range(max(STEPS.values())):
        batch = batches[number % len(batches)]
        for name, step in steps.items():
            if number < STEPS[name]:
                times[name].append(seconds(lambda step=step, batch=batch: step(*batch)))
    steps_an_epoch = -(-TEXTS // BATCH)
    totals = {name: statistics.median(values) * steps_an_epoch * 5 for name, values in times.items()}
    notes = {
        "extrapolated": f"the median of {STEPS['ours']} steps in turns (packed: a single step), times {steps_an_epoch} "
        f"steps, times 5 epochs; synthetic ids, lengths log-normal, batches of {BATCH} cut at {CUT} tokens; "
        f"V={SIZES[0]}, E={SIZES[1]}, H={SIZES[2]}; torch.optim.Adam, the same loop for all",
        "published": PUBLISHED,
    }
    record(Row("imdb", IMDB, "training", "s", totals.pop("ours"), totals, STEPS["ours"], notes=notes))


def _batch(generator: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    lengths = np.clip(np.rint(generator.lognormal(np.log(MEDIAN), SIGMA, BATCH)), 1, CUT).astype(np.int64)
    steps = int(lengths.max())
    ids = draw_ids(Cell(BATCH, steps, vocabulary=SIZES[0] - 1), generator) + 1  # 0 is the padding
    ids[torch.arange(steps).unsqueeze(1) >= torch.from_numpy(lengths)] = 0
    return ids, torch.from_numpy(lengths), torch.from_numpy(generator.integers(0, 2, BATCH))


def _stepper(model: nn.Module) -> Callable[[Tensor, Tensor, Tensor], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(ids: Tensor, lengths: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(ids, lengths), labels).backward()
        optimizer.step()

    return step

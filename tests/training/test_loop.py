from __future__ import annotations

import copy
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast.models import PlainTextClassifier, TextClassifier
from textclf_fast.text import RaggedTokens, ShuffledBatches
from textclf_fast.training import EncodedTexts, EpochResult, Step, TrainingOptions, evaluate, fit, train_epochs

FAST = TrainingOptions(epochs=12, batch_size=8, learning_rate=1e-2)


def weights_of(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("bucket", [True, False])
def test_learns(toy: Any, layout: Any, bucket: bool) -> None:
    model = toy.model()
    before = evaluate(model, toy.data)
    options = TrainingOptions(epochs=12, batch_size=8, learning_rate=1e-2, layout=layout, bucket=bucket)
    history = fit(model, toy.data, toy.data, options)
    assert before.accuracy < 0.7
    assert history.best.held_out.accuracy > 0.97
    assert evaluate(model, toy.data).accuracy == history.best.held_out.accuracy


def test_is_the_users_own_loop(toy: Any) -> None:
    """Adam, cross-entropy, zero_grad, backward, step: written out here, the weights come out the same to the bit."""
    options = TrainingOptions(epochs=2, batch_size=16, seed=3, layout="padded", bucket=False, fused_adam=False)
    model = toy.model()
    by_hand = copy.deepcopy(model)
    list(train_epochs(model, toy.data, toy.data, options))

    batches = ShuffledBatches(len(toy.data), 16, seed=3)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
    for epoch in range(2):
        batches.set_epoch(epoch)
        for rows in batches:
            ids, lengths = toy.data.tokens.padded(rows)
            loss = functional.cross_entropy(by_hand(ids, lengths), toy.data.labels[torch.from_numpy(rows)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert equal(weights_of(model), weights_of(by_hand))


def test_fused_adam_is_adam(toy: Any) -> None:
    losses = {}
    for fused in (False, True):
        options = TrainingOptions(epochs=2, fused_adam=fused)
        losses[fused] = [
            step.loss for result in train_epochs(toy.model(), toy.data, toy.data, options) for step in result.steps
        ]
    assert losses[True] == pytest.approx(losses[False], abs=1e-5)


def test_a_sparse_embedding_trains_alike(toy: Any) -> None:
    losses = {}
    for sparse in (False, True):
        results = train_epochs(toy.model(sparse=sparse), toy.data, toy.data, TrainingOptions(epochs=4, batch_size=8))
        losses[sparse] = [[*(step.loss for step in result.steps), result.held_out.loss] for result in results]
    for ours, dense in zip(losses[True], losses[False], strict=True):
        assert ours == pytest.approx(dense, abs=1e-5)


@pytest.mark.parametrize("epochs_taken", [1, 2])
def test_a_model_is_handed_back_with_all_rows_up_to_date(toy: Any, epochs_taken: int) -> None:
    """After the last epoch, and where the caller stops in between."""
    models = [toy.model(sparse=sparse) for sparse in (False, True)]
    for model in models:
        epochs = train_epochs(model, toy.data, toy.data, TrainingOptions(epochs=2, batch_size=8))
        for _ in range(epochs_taken):
            next(epochs)
        epochs.close()
        embedding = model.encoder.embedding
        assert not embedding._forward_pre_hooks
        assert not embedding._state_dict_pre_hooks
    torch.testing.assert_close(models[1].encoder.embedding.weight, models[0].encoder.embedding.weight)


def test_pytorchs_default_adam_takes_no_sparse_embedding(toy: Any) -> None:
    with pytest.raises(ValueError, match="fused_adam: got False, expected True for a model with a sparse embedding"):
        fit(toy.model(sparse=True), toy.data, toy.data, TrainingOptions(fused_adam=False))


@pytest.mark.parametrize(("fused", "sparse"), [(False, False), (True, False), (True, True)])
def test_evaluation_sees_the_weights_of_now(toy: Any, fused: bool, sparse: bool) -> None:
    """Nothing derived from older weights may be left: a fused optimizer does not count its changes."""
    model = toy.model(sparse=sparse)
    options = TrainingOptions(epochs=4, learning_rate=1e-2, fused_adam=fused)
    for result in train_epochs(model, toy.data, toy.data, options):
        fresh = toy.model(seed=1)
        fresh.load_state_dict(model.state_dict())
        assert result.held_out.loss == pytest.approx(evaluate(fresh, toy.data).loss, abs=1e-6)


def test_plain_classifier_trains_alike(toy: Any) -> None:
    ours = toy.model()
    plain = PlainTextClassifier(len(toy.vocabulary), 16, 16, 2, layout="packed")
    ours.load_state_dict(plain.state_dict())
    options = TrainingOptions(epochs=2, layout="padded", bucket=False)
    losses = [
        [step.loss for result in train_epochs(model, toy.data, toy.data, options) for step in result.steps]
        for model in (ours, plain)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_the_seed_fixes_everything(toy: Any) -> None:
    """Dropout included, and whatever was drawn from torch's generator before."""

    def trained(seed: int, draws: int) -> list[Tensor]:
        model = toy.model(dropout=0.3)
        torch.rand(draws)
        fit(model, toy.data, toy.data, TrainingOptions(epochs=2, seed=seed))
        return weights_of(model)

    first = trained(0, 0)
    assert equal(first, trained(0, 5))
    assert not equal(first, trained(1, 0))


def test_leaves_the_global_generator_alone(toy: Any) -> None:
    model = toy.model(dropout=0.3)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit(model, toy.data, toy.data, TrainingOptions(epochs=1))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("sparse", [False, True])
def test_keeps_the_best_epoch(toy: Any, sparse: bool) -> None:
    model = toy.model(sparse=sparse)
    seen: list[list[Tensor]] = []
    options = TrainingOptions(epochs=5, learning_rate=0.01, batch_size=16)

    def spoil_the_last(result: EpochResult) -> None:
        seen.append(weights_of(model))
        if len(seen) == options.epochs - 1:  # no epoch at this rate makes up for it
            with torch.no_grad():
                list(model.parameters())[-2].mul_(-100)  # of the last layer

    history = fit(model, toy.data, toy.data, options, on_epoch=spoil_the_last)
    accuracies = [result.held_out.accuracy for result in history.epochs]
    assert accuracies[-1] < max(accuracies), "the test needs a training that gets worse at the end"
    assert history.best.epoch == accuracies.index(max(accuracies))
    assert equal(weights_of(model), seen[history.best.epoch])


def test_steps_and_epochs_are_reported(toy: Any) -> None:
    steps: list[Step] = []
    results: list[EpochResult] = []
    options = TrainingOptions(epochs=2, batch_size=64)
    history = fit(toy.model(), toy.data, toy.data, options, steps.append, results.append)
    assert [(step.epoch, step.step) for step in steps] == [(epoch, step) for epoch in range(2) for step in range(4)]
    assert results == history.epochs
    assert [step for result in results for step in result.steps] == steps
    for result in results:
        assert sum(step.tokens for step in result.steps) == len(toy.data.tokens.values)
        assert result.loss == pytest.approx(np.mean([step.loss for step in result.steps]))
        assert result.tokens_per_second == pytest.approx(len(toy.data.tokens.values) / result.seconds)


def test_only_training_is_timed(toy: Any) -> None:
    class SlowToEvaluate(TextClassifier):
        def forward(self, *inputs: Any) -> Tensor:
            if not self.training:
                time.sleep(0.2)
            return super().forward(*inputs)

    model = SlowToEvaluate(len(toy.vocabulary), 4, 4, 2)
    options = TrainingOptions(epochs=1, batch_size=40)
    list(train_epochs(model, toy.data, toy.data, options))  # the first run is slow, whatever is timed
    begin = time.perf_counter()
    (result,) = train_epochs(model, toy.data, toy.data, options, on_step=lambda step: time.sleep(0.2))
    assert time.perf_counter() - begin > 2  # of which five steps and five evaluated batches slept
    assert result.seconds < 0.7


def test_evaluation_changes_nothing(toy: Any) -> None:
    model = toy.model(dropout=0.5).train()
    before = weights_of(model)
    first, second = evaluate(model, toy.data), evaluate(model, toy.data, batch_size=7, layout="padded", bucket=False)
    assert model.training
    assert equal(before, weights_of(model))
    assert first.loss == pytest.approx(second.loss, abs=1e-5)
    assert (first.accuracy, first.macro_f1) == (second.accuracy, second.macro_f1)


def test_diverging_training_is_stopped(toy: Any) -> None:
    model = toy.model()
    with torch.no_grad():
        model.fc.bias.fill_(math.inf)
    with pytest.raises(FloatingPointError, match="the loss became nan in epoch 1, step 1: try a lower learning rate"):
        fit(model, toy.data, toy.data, FAST)


def test_no_data(toy: Any) -> None:
    nothing = EncodedTexts(RaggedTokens.from_lists([]), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="train: expected at least one text"):
        fit(toy.model(), nothing, toy.data)
    with pytest.raises(ValueError, match="data: expected at least one text"):
        evaluate(toy.model(), nothing)


@pytest.mark.parametrize(
    "option",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"seed": -1},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"layout": "dense"},
    ],
)
def test_bad_options(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        TrainingOptions(**option)


def test_training_does_not_import_the_compiler(tmp_path: Path) -> None:
    """Which takes longer than many a training; torch's own optimizers do."""
    code = """
import sys, torch
before = 'torch._dynamo' in sys.modules
from textclf_fast import TextClassifier
from textclf_fast.text import RaggedTokens
from textclf_fast.training import EncodedTexts, TrainingOptions, fit
data = EncodedTexts(RaggedTokens.from_lists([[2, 3], [4]]), torch.tensor([0, 1]))
fit(TextClassifier(5, 4, 4, 2, sparse=True), data, data, TrainingOptions(epochs=1, clip_norm=1.0))
print(before, 'torch._dynamo' in sys.modules)
"""
    # Elsewhere: in the project's folder it would import the sources.
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    before, after = run.stdout.split()
    assert before == after

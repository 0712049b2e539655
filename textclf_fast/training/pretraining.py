"""Pre-training: a language model on texts without labels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textclf_fast.models import LanguageModel
from textclf_fast.models.sampled_softmax import Candidates
from textclf_fast.nn.lstm import States
from textclf_fast.text import END_ID, RaggedTokens, StreamBatches
from textclf_fast.training.schedules import Schedule

# Held-out tokens that a perplexity is computed from: it takes all V scores of each, at V = 20,000 and I = 128 some 2.6
# million multiplications a direction, as many as a training step with 512 candidates.
_PERPLEXITY_TOKENS = 50_000

# Of a training that ends after some time, how many steps it will have is not known: this many parts stand for them.
_PARTS = 10_000
_SCHEDULE = Schedule("one-cycle", warmup=0.1)


@dataclass(frozen=True)
class PretrainingOptions:
    """How to train a language model.

    Attributes:
        epochs: how often each text is seen, at most.
        minutes: the time after which training ends, in the middle of an epoch if need be. The learning rate falls
            with whatever comes first.
        batch_size, steps: B rows of T tokens a step. Each row is a stretch of the stream of all texts, and starts from
            the states in which it ended in the step before; gradients end at the step (truncated backpropagation).
        learning_rate: Adam's, the highest of one cycle (:class:`Schedule`).
        gradient_norm: larger gradients are scaled down to it.
        frequent, samples: what a target is compared with (:meth:`Candidates.draw`).
        activation_penalty, slowness_penalty: times the mean square of the output under its dropout, and of its change
            from step to step: AR and TAR of Merity et al., there 2 and 1.
        seed: of the order of the texts, of dropout and of candidates.

    Raises:
        ValueError: a number out of range.
    """

    epochs: int = 1
    minutes: float | None = None
    batch_size: int = 32
    steps: int = 64
    learning_rate: float = 4e-3
    gradient_norm: float = 1.0
    frequent: int = 256
    samples: int = 256
    activation_penalty: float = 0.0
    slowness_penalty: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("steps", 2),
            ("frequent", 1),
            ("samples", 1),
            ("activation_penalty", 0),
            ("slowness_penalty", 0),
            ("seed", 0),
        ):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("minutes", "learning_rate", "gradient_norm"):
            number = getattr(self, name)
            if not (number is None and name == "minutes") and not (math.isfinite(number) and number > 0):
                raise ValueError(f"{name}: expected a positive number, got {number}")


@dataclass(frozen=True)
class PretrainingStep:
    """One update: its epoch (from 0), how much of the training is over (0 to 1), loss, tokens, and seconds."""

    epoch: int
    done: float
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class PretrainingEpoch:
    """An epoch (from 0), whole or cut short: mean loss, tokens and seconds; the perplexity on held-out texts."""

    epoch: int
    loss: float
    tokens: int
    seconds: float
    perplexity: float | None


def pretrain(
    model: LanguageModel,
    train: NDArray[Any],
    held_out: NDArray[Any] | None,
    options: PretrainingOptions | None = None,
    on_step: Callable[[PretrainingStep], None] | None = None,
    on_epoch: Callable[[PretrainingEpoch], None] | None = None,
    should_stop: Callable[[], object] | None = None,
) -> list[PretrainingEpoch]:
    """Trains a language model.

    Args:
        model: is left in eval mode.
        train, held_out: (N,) ids, text after text, each with its END_ID, as :attr:`TokenFile.tokens` and `make_stream`;
            without the latter there is no perplexity.
        options: PretrainingOptions() by default.
        on_step, on_epoch: called after each step and each epoch.
        should_stop: asked after each step; training ends when the answer is true, in the middle of an epoch or not.

    Returns:
        the epochs; the last one may have been cut short.

    Raises:
        ValueError: fewer than two tokens a row.
        FloatingPointError: the loss is no longer a finite number.
    """
    options = options or PretrainingOptions()
    batches = StreamBatches(train, options.batch_size, options.steps)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate, betas=(0.9, 0.99), fused=True)
    epochs: list[PretrainingEpoch] = []
    clock = _Clock(options, len(batches))
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        stopped = False
        while clock.done < 1 and not stopped:
            steps, stopped = _train_one_epoch(model, batches, optimizer, clock, options, on_step, should_stop)
            epochs.append(
                PretrainingEpoch(
                    len(epochs),
                    sum(step.loss for step in steps) / len(steps),
                    sum(step.tokens for step in steps),
                    sum(step.seconds for step in steps),
                    None if held_out is None else perplexity(model, held_out, options.steps),
                )
            )
            if on_epoch is not None:
                on_epoch(epochs[-1])
    model.eval()
    return epochs


class _Clock:
    """How much of a training is over."""

    def __init__(self, options: PretrainingOptions, steps_per_epoch: int) -> None:
        self._seconds = math.inf if options.minutes is None else 60 * options.minutes
        self._steps_per_epoch = steps_per_epoch
        self._all_steps = options.epochs * steps_per_epoch
        self._start = time.perf_counter()
        self._steps = 0
        self.done = 0.0

    @property
    def epoch(self) -> int:
        return self._steps // self._steps_per_epoch

    def take_step(self) -> None:
        self._steps += 1
        elapsed = time.perf_counter() - self._start
        self.done = min(1.0, max(self._steps / self._all_steps, elapsed / self._seconds))


def _train_one_epoch(
    model: LanguageModel,
    batches: StreamBatches,
    optimizer: torch.optim.Optimizer,
    clock: _Clock,
    options: PretrainingOptions,
    on_step: Callable[[PretrainingStep], None] | None,
    should_stop: Callable[[], object] | None,
) -> tuple[list[PretrainingStep], bool]:
    """The steps, and whether somebody has stopped them."""
    model.train()
    epoch = clock.epoch
    steps: list[PretrainingStep] = []
    states: States | None = None
    start = time.perf_counter()
    for number in range(len(batches)):
        ids, next_ids = batches[number]
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * _SCHEDULE.factor(round(clock.done * _PARTS), _PARTS + 1)
        loss, states = _step(model, optimizer, ids, next_ids, states, options)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss} in epoch {epoch + 1}, step {number + 1}: try a lower learning rate"
            )
        clock.take_step()
        steps.append(PretrainingStep(epoch, clock.done, loss, ids.numel(), time.perf_counter() - start))
        if on_step is not None:
            on_step(steps[-1])
        if should_stop is not None and should_stop():
            return steps, True
        if clock.done >= 1:
            break
        start = time.perf_counter()
    return steps, False


def _step(
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    ids: Tensor,
    next_ids: Tensor,
    states: States | None,
    options: PretrainingOptions,
) -> tuple[float, States]:
    output, states = model(ids, _carried(model, states))
    candidates = Candidates.draw(model.config["vocab_size"], options.frequent, options.samples)
    loss = model.loss(output, ids, next_ids, candidates)
    total = loss
    if options.activation_penalty:
        total = total + options.activation_penalty * output.square().mean()
    if options.slowness_penalty and len(ids) > 1:
        total = total + options.slowness_penalty * (output[1:] - output[:-1]).square().mean()
    optimizer.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(model.parameters(), options.gradient_norm)
    optimizer.step()
    return loss.item(), states


def _carried(model: LanguageModel, states: States | None) -> States | None:
    """The states to go on from. The backward direction starts each batch anew: it has not seen what follows."""
    if states is None:
        return None
    h, c = (state.detach().clone() for state in states)
    if model.encoder.lstm.bidirectional:
        h[1::2] = 0
        c[1::2] = 0
    return h, c


def make_stream(tokens: RaggedTokens, seed: int | None = None) -> NDArray[np.int64]:
    """All texts in one row, each with its END_ID, (N + n,) int64; in an order drawn from `seed`, their own without."""
    order = np.arange(len(tokens)) if seed is None else np.random.default_rng(seed).permutation(len(tokens))
    end = np.array([END_ID])
    return np.concatenate([part for row in order for part in (tokens[row], end)] or [np.empty(0, dtype=np.int64)])


@torch.no_grad()
def perplexity(model: LanguageModel, tokens: NDArray[Any], steps: int = 64) -> float:
    """exp of the mean loss of a guessed word, exact, in eval mode; the model is left in the mode it was in.

    Args:
        tokens: (N,) ids, as in `pretrain`; the first 50,000 are enough. END_ID counts as a word.
        steps: after so many the backward direction starts anew, as it does in training.

    Raises:
        ValueError: there are fewer than two tokens.
    """
    tokens = tokens[:_PERPLEXITY_TOKENS]
    batches = StreamBatches(tokens, max(1, min(8, len(tokens) // steps)), steps)
    was_training = model.training
    model.eval()
    states, total, count = None, 0.0, 0
    for number in range(len(batches)):
        ids, next_ids = batches[number]
        output, states = model(ids, _carried(model, states))
        total += ids.numel() * float(model.loss(output, ids, next_ids))
        count += ids.numel()
    model.train(was_training)
    return math.exp(total / count)

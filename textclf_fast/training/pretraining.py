"""Pre-training: a language model on texts without labels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textclf_fast.models import LanguageModel
from textclf_fast.models.sampled_softmax import Candidates
from textclf_fast.nn.lstm import States
from textclf_fast.text import END_ID, RaggedTokens, StreamBatches
from textclf_fast.training.pretraining_resume import (
    PretrainingCheckpoints,
    PretrainingEpoch,
    PretrainingState,
    PretrainingStep,
)
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


def pretrain(
    model: LanguageModel,
    train: NDArray[Any],
    held_out: NDArray[Any] | None,
    options: PretrainingOptions | None = None,
    on_step: Callable[[PretrainingStep], None] | None = None,
    on_epoch: Callable[[PretrainingEpoch], None] | None = None,
    should_stop: Callable[[], object] | None = None,
    checkpoints: PretrainingCheckpoints | None = None,
) -> list[PretrainingEpoch]:
    """Trains a language model.

    Args:
        model: is left in eval mode.
        train, held_out: (N,) ids, text after text, each with its END_ID, as :attr:`TokenFile.tokens` and `make_stream`;
            without the latter there is no perplexity.
        options: PretrainingOptions() by default.
        on_step, on_epoch: called after each step and each epoch.
        should_stop: asked after each step; training ends when the answer is true, in the middle of an epoch or not.
        checkpoints: to go on after the process has ended, whatever ended it.

    Returns:
        the epochs; the last one may have been cut short.

    Raises:
        ValueError: fewer than two tokens a row.
        FloatingPointError: the loss is no longer a finite number.
        DataError, OSError: see `PretrainingCheckpoints`.
    """
    options = options or PretrainingOptions()
    batches = StreamBatches(train, options.batch_size, options.steps)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate, betas=(0.9, 0.99), fused=True)
    state = PretrainingState(model, optimizer)
    if checkpoints is not None:
        checkpoints.begin(state, asdict(options), (train, held_out))
    clock = _Clock(options, len(batches), state)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        if state.rng is not None:
            torch.set_rng_state(state.rng)
        stopped = False
        while clock.done < 1 and not stopped:
            stopped = _train_one_epoch(state, batches, clock, options, on_step, should_stop, checkpoints)
            steps, state.steps, state.states = state.steps, [], None
            state.epochs.append(
                PretrainingEpoch(
                    len(state.epochs),
                    sum(step.loss for step in steps) / len(steps),
                    sum(step.tokens for step in steps),
                    sum(step.seconds for step in steps),
                    None if held_out is None else perplexity(model, held_out, options.steps),
                )
            )
            if on_epoch is not None:
                on_epoch(state.epochs[-1])
            if checkpoints is not None and not stopped:  # where it was stopped, the epoch is to go on
                checkpoints.write()
    model.eval()
    return state.epochs


class _Clock:
    """How much of a training is over."""

    def __init__(self, options: PretrainingOptions, steps_per_epoch: int, state: PretrainingState) -> None:
        self._seconds = math.inf if options.minutes is None else 60 * options.minutes
        self._all_steps = options.epochs * steps_per_epoch
        self._start = time.perf_counter() - state.seconds
        self._steps = len(state.epochs) * steps_per_epoch + len(state.steps)
        self.done = self._share(state.seconds)

    def take_step(self) -> float:
        """The seconds since the beginning."""
        self._steps += 1
        elapsed = time.perf_counter() - self._start
        self.done = self._share(elapsed)
        return elapsed

    def _share(self, elapsed: float) -> float:
        return min(1.0, max(self._steps / self._all_steps, elapsed / self._seconds))


def _train_one_epoch(
    state: PretrainingState,
    batches: StreamBatches,
    clock: _Clock,
    options: PretrainingOptions,
    on_step: Callable[[PretrainingStep], None] | None,
    should_stop: Callable[[], object] | None,
    checkpoints: PretrainingCheckpoints | None,
) -> bool:
    """Adds its steps to the state; those that are there already are over. Whether somebody has stopped them."""
    model, optimizer = state.model, state.optimizer
    model.train()
    epoch = len(state.epochs)
    start = time.perf_counter()
    for number in range(len(state.steps), len(batches)):
        ids, next_ids = batches[number]
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * _SCHEDULE.factor(round(clock.done * _PARTS), _PARTS + 1)
        loss, state.states = _step(model, optimizer, ids, next_ids, state.states, options)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss} in epoch {epoch + 1}, step {number + 1}: try a lower learning rate"
            )
        state.seconds = clock.take_step()
        state.steps.append(PretrainingStep(epoch, clock.done, loss, ids.numel(), time.perf_counter() - start))
        if on_step is not None:
            on_step(state.steps[-1])
        stop = should_stop is not None and bool(should_stop())
        if checkpoints is not None:
            checkpoints.after_step(stop)
        if stop:
            return True
        if clock.done >= 1:
            break
        start = time.perf_counter()
    return False


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

"""Pre-training: a language model on texts without labels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textclf_fast.models.language_model import LanguageModel
from textclf_fast.models.sampled_softmax import Candidates
from textclf_fast.text import PAD_ID, RaggedTokens

# Held-out tokens that a perplexity is computed from: it takes all V scores of each, some 5 million multiplications at
# V = 20,000 and I = 128 and as many again for the other direction, ten times a training step's.
_PERPLEXITY_TOKENS = 50_000


@dataclass(frozen=True)
class PretrainingOptions:
    """How to train a language model.

    Attributes:
        epochs: how often each text is seen, at most.
        minutes: the time after which training ends, in the middle of an epoch if need be. The learning rate falls
            with whatever comes first.
        batch_size, steps: B rows of T tokens a step. Each row is a stretch of the stream of all texts, and starts from
            the states in which it ended in the step before; gradients end at the step (truncated backpropagation).
        learning_rate: Adam's, the highest of a cycle (:func:`cycle`).
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
    """An epoch (from 0), whole or cut short: mean loss, tokens and seconds; the perplexity on held-out texts after it."""

    epoch: int
    loss: float
    tokens: int
    seconds: float
    perplexity: float


def pretrain(
    model: LanguageModel,
    train: RaggedTokens,
    held_out: RaggedTokens,
    options: PretrainingOptions | None = None,
    on_step: Callable[[PretrainingStep], None] | None = None,
    on_epoch: Callable[[PretrainingEpoch], None] | None = None,
) -> list[PretrainingEpoch]:
    """Trains a language model.

    Args:
        model: is left in eval mode.
        train, held_out: texts as ids; the stream has one <pad> after each, which is how a text ends to the model.
        options: PretrainingOptions() by default.
        on_step, on_epoch: called after each step and each epoch.

    Raises:
        ValueError: too few tokens for one step.
        FloatingPointError: the loss is no longer a finite number.
    """
    options = options or PretrainingOptions()
    steps_per_epoch = _num_windows(len(train.values) + len(train), options)
    if steps_per_epoch == 0:
        raise ValueError(
            f"train: expected at least {options.batch_size * (options.steps + 2)} tokens, a row for each of batch_size "
            f"= {options.batch_size} with steps = {options.steps}, got {len(train.values)}"
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate, betas=(0.9, 0.99), fused=True)
    epochs: list[PretrainingEpoch] = []
    start = time.perf_counter()
    done = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        for epoch in range(options.epochs):
            steps: list[PretrainingStep] = []
            model.train()
            states = None
            stream = make_stream(train, np.random.default_rng([options.seed, epoch]))
            begin = time.perf_counter()
            for number, window in enumerate(_windows(stream, options)):
                for group in optimizer.param_groups:
                    group["lr"] = options.learning_rate * cycle(done)
                loss, states = _step(model, optimizer, window, states, options)
                now = time.perf_counter()
                if not math.isfinite(loss):
                    raise FloatingPointError(
                        f"the loss became {loss} in epoch {epoch + 1}, step {number + 1}: try a lower learning rate"
                    )
                done = (epoch + (number + 1) / steps_per_epoch) / options.epochs
                if options.minutes is not None:
                    done = max(done, (now - start) / (60 * options.minutes))
                steps.append(
                    PretrainingStep(epoch, min(done, 1.0), loss, options.batch_size * options.steps, now - begin)
                )
                if on_step is not None:
                    on_step(steps[-1])
                if done >= 1:
                    break
                begin = time.perf_counter()
            epochs.append(
                PretrainingEpoch(
                    epoch,
                    sum(step.loss for step in steps) / len(steps),
                    sum(step.tokens for step in steps),
                    sum(step.seconds for step in steps),
                    perplexity(model, held_out, options.steps),
                )
            )
            if on_epoch is not None:
                on_epoch(epochs[-1])
            if done >= 1:
                break
    model.eval()
    return epochs


def cycle(done: float, warm_up: float = 0.1, first: float = 0.04, last: float = 0.001) -> float:
    """The learning rate's factor when a share ``done`` of a training is over: up to 1, then down along a cosine.

    L. N. Smith and N. Topin, Super-Convergence, 2018, as one cycle of the rate alone. It is a function of the share so
    that it also serves a training that ends at a given time.
    """
    if done < warm_up:
        return first + (1 - first) * done / warm_up
    return last + (1 - last) * (1 + math.cos(math.pi * min(1.0, (done - warm_up) / (1 - warm_up)))) / 2


def make_stream(tokens: RaggedTokens, random: np.random.Generator | None = None) -> NDArray[np.int64]:
    """All texts in one row, (N + n,) int64, in an order drawn from `random` (their own without), <pad> after each."""
    count = len(tokens)
    order = np.arange(count) if random is None else random.permutation(count)
    ends = np.cumsum(tokens.lengths[order] + 1)
    stream = np.full(len(tokens.values) + count, PAD_ID, dtype=np.int64)
    for row, end in zip(order.tolist(), ends.tolist(), strict=True):
        text = tokens[row]
        stream[end - 1 - len(text) : end - 1] = text
    return stream


@torch.no_grad()
def perplexity(model: LanguageModel, tokens: RaggedTokens, steps: int = 64, batch_size: int = 8) -> float:
    """exp of the exact mean loss of a word, over the directions, in eval mode; the model is left in the mode it was in.

    The first 50,000 tokens are enough. <pad> between the texts counts as a word.

    Raises:
        ValueError: there are not `steps` + 2 tokens for each of `batch_size` rows.
    """
    options = PretrainingOptions(batch_size=batch_size, steps=steps)
    was_training = model.training
    model.eval()
    states, losses = None, []
    for window in _windows(make_stream(tokens)[:_PERPLEXITY_TOKENS], options):
        output, states = model(window[1:-1], _carried(model, states))
        losses.append(float(model.loss(output, _targets(model, window))))
    model.train(was_training)
    if not losses:
        raise ValueError(f"tokens: expected at least {batch_size * (steps + 2)}, got {len(tokens.values)}")
    return math.exp(sum(losses) / len(losses))


def _num_windows(length: int, options: PretrainingOptions) -> int:
    return max(0, length // options.batch_size - 2) // options.steps


def _windows(stream: NDArray[np.int64], options: PretrainingOptions) -> Iterator[Tensor]:
    """(T + 2, B) stretches of each of B parts of the stream, T apart: what is read, and a token before and after."""
    rows, steps = options.batch_size, options.steps
    parts = torch.from_numpy(stream[: len(stream) // rows * rows].reshape(rows, -1)).t()
    for number in range(_num_windows(len(stream), options)):
        yield parts[number * steps : (number + 1) * steps + 2].contiguous()


def _targets(model: LanguageModel, window: Tensor) -> list[Tensor]:
    return [window[2:], window[:-2]] if model.encoder.lstm.bidirectional else [window[2:]]


def _carried(model: LanguageModel, states: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
    """The states to start from. The backward direction starts each window anew: what follows it is not known yet."""
    if states is None:
        return None
    h, c = (state.detach() for state in states)
    if model.encoder.lstm.bidirectional:
        h[1::2] = 0
        c[1::2] = 0
    return h, c


def _step(
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    window: Tensor,
    states: tuple[Tensor, Tensor] | None,
    options: PretrainingOptions,
) -> tuple[float, tuple[Tensor, Tensor]]:
    output, states = model(window[1:-1], _carried(model, states))
    candidates = Candidates.draw(model.config["vocab_size"], options.frequent, options.samples)
    loss = model.loss(output, _targets(model, window), candidates)
    total = loss
    if options.activation_penalty:
        total = total + options.activation_penalty * output.square().mean()
    if options.slowness_penalty:
        total = total + options.slowness_penalty * (output[1:] - output[:-1]).square().mean()
    optimizer.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(model.parameters(), options.gradient_norm)
    optimizer.step()
    return loss.item(), states

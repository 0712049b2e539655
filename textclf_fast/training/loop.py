"""The training loop: Adam on the cross-entropy, an evaluation after each epoch."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from textclf_fast.optim import DeferredAdam
from textclf_fast.training.adversarial import AdversarialWords
from textclf_fast.training.distributed import ALONE, Ranks
from textclf_fast.training.encoded import EncodedTexts
from textclf_fast.training.evaluation import device_of, evaluate, make_batches
from textclf_fast.training.objective import Objective, clip_gradients
from textclf_fast.training.options import TrainingOptions
from textclf_fast.training.results import EpochResult, History, Step
from textclf_fast.training.resume import Checkpoints, TrainingState


def fit(
    model: nn.Module,
    train: EncodedTexts,
    held_out: EncodedTexts,
    options: TrainingOptions | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    checkpoints: Checkpoints | None = None,
    ranks: Ranks = ALONE,
) -> History:
    """Trains a classifier, and leaves it with the weights of its best epoch on the held-out data, or of the last one.

    Args:
        model: its forward takes what `EncodedTexts.batch` gives, and returns logits (B, C).
        train, held_out: the data; neither may be empty.
        options: TrainingOptions() by default.
        on_step, on_epoch: called after each step and each epoch, outside the time measured.
        optimizer: of the model's parameters, instead of the one that `options` describes. A schedule's peak is then the
            rate of each of its groups.
        checkpoints: to go on after the process has ended, whatever ended it.
        ranks: processes that each call this with the same arguments and train one model together: each takes its part
            of every batch, and what comes out is as of one process, but for the order of sums and for dropout.

    Raises:
        ValueError: there is no data.
        FloatingPointError: the loss is no longer a finite number.
        DataError, OSError, KeyboardInterrupt, SystemExit: see `Checkpoints`.
    """
    options = options or TrainingOptions()
    state = TrainingState(model, optimizer or make_optimizer(model, options), History(monitor=options.monitor))
    with contextlib.ExitStack() as stack:
        after_step = None
        if checkpoints is not None:
            stack.enter_context(checkpoints.begin(state, options, (train, held_out), ranks))
            after_step = checkpoints.after_step
        for result in _epochs(state, train, held_out, options, on_step, ranks, after_step):
            if state.history.best is result:
                state.best = copy.deepcopy(model.state_dict())
            if on_epoch is not None:
                on_epoch(result)
            if checkpoints is not None:
                checkpoints.write()
    if options.keep == "best":
        model.load_state_dict(state.best)
    return state.history


def train_epochs(
    model: nn.Module,
    train: EncodedTexts,
    held_out: EncodedTexts,
    options: TrainingOptions | None = None,
    on_step: Callable[[Step], None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Iterator[EpochResult]:
    """As `fit`, but an iterator, so that several trainings can take turns; the weights are those of the last epoch."""
    options = options or TrainingOptions()
    state = TrainingState(model, optimizer or make_optimizer(model, options), History(monitor=options.monitor))
    return _epochs(state, train, held_out, options, on_step)


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """What `options` describe, of all parameters.

    Raises:
        ValueError: fused_adam is False, and the model has a sparse embedding.
    """
    decay: dict[str, Any] = {"weight_decay": options.weight_decay, "decoupled_weight_decay": True}
    if options.fused_adam:
        return DeferredAdam(model.parameters(), model, options.learning_rate, **decay)
    if any(isinstance(module, nn.Embedding) and module.sparse for module in model.modules()):
        raise ValueError("fused_adam: got False, expected True for a model with a sparse embedding")
    return torch.optim.Adam(model.parameters(), options.learning_rate, **decay)


def _epochs(
    state: TrainingState,
    train: EncodedTexts,
    held_out: EncodedTexts,
    options: TrainingOptions,
    on_step: Callable[[Step], None] | None = None,
    ranks: Ranks = ALONE,
    after_step: Callable[[], None] | None = None,
) -> Iterator[EpochResult]:
    if len(train) == 0:
        raise ValueError("train: expected at least one text, got none")
    optimizer = state.optimizer
    run = _Run(state, train, options, on_step, ranks, after_step)
    try:
        while not state.history.is_over(options.epochs, options.patience):
            with _deterministic(options.deterministic):
                run.one_epoch()
                if ranks.size > 1 and isinstance(optimizer, DeferredAdam):
                    # Rows that one process alone looks up, as it evaluates, would be rounded otherwise than elsewhere.
                    optimizer.synchronize()
                result = EpochResult(
                    len(state.history.epochs),
                    state.steps,
                    evaluate(state.model, held_out, options.batch_size, options.layout, options.bucket, ranks),
                )
            state.history.epochs.append(result)
            state.steps = []
            yield result
    finally:
        if isinstance(optimizer, DeferredAdam):
            optimizer.detach()


class _Run:
    """What all epochs of a training have in common."""

    def __init__(
        self,
        state: TrainingState,
        train: EncodedTexts,
        options: TrainingOptions,
        on_step: Callable[[Step], None] | None,
        ranks: Ranks,
        after_step: Callable[[], None] | None,
    ) -> None:
        self._state = state
        self._train = train
        self._options = options
        self._on_step = on_step
        self._ranks = ranks
        self._after_step = after_step
        self._device = device_of(state.model)
        self._batches = make_batches(train, options.batch_size, options.bucket, shuffle=True, seed=options.seed)
        self._objective = Objective(options, train.labels, train.weights)
        self._adversary = AdversarialWords(state.model, options.adversarial) if options.adversarial else None
        self._trained: list[bool] = []  # of each parameter, when the model was last wrapped
        self._forward = state.model
        self._peaks = [float(group["lr"]) for group in state.optimizer.param_groups]

    def one_epoch(self) -> None:
        """Adds its steps to the state; those that are there already are over."""
        state, options, ranks, train, device = self._state, self._options, self._ranks, self._train, self._device
        epoch = len(state.history.epochs)
        lengths = train.tokens.lengths
        parameters = list(state.model.parameters())
        scheduled = options.schedule.kind != "constant"
        lowered = torch.autocast(device.type, torch.bfloat16) if options.bfloat16 else contextlib.nullcontext()
        state.model.train()
        self._wrap(parameters)
        self._batches.set_epoch(epoch)
        # Dropout draws from torch's global generator: seeded for this epoch, and afterwards as if it had not been
        # touched.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            seeds = [options.seed, epoch] + ([ranks.rank] if ranks.rank else [])
            torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
            if state.rng is not None and state.steps:
                torch.set_rng_state(state.rng)
            state.rng = None
            start = time.perf_counter()
            for rows in itertools.islice(self._batches, len(state.steps), None):
                if scheduled:
                    self._set_rates(epoch)
                for parameter in parameters:  # optimizer.zero_grad() does this in ten times the time, 50 us
                    parameter.grad = None
                loss = self._backward(rows, lowered)
                if self._adversary is not None:
                    with self._adversary.moved():
                        self._backward(rows, lowered)
                if options.clip_norm is not None:
                    clip_gradients(parameters, options.clip_norm)
                state.optimizer.step()
                number = loss.item()  # waits for the device: the step is over
                if ranks.size > 1:
                    number = float(ranks.sum(torch.tensor([number], dtype=torch.float64)))
                seconds = time.perf_counter() - start
                if not math.isfinite(number):
                    raise FloatingPointError(
                        f"the loss became {number} in epoch {epoch + 1}, step {len(state.steps) + 1}: "
                        "try a lower learning rate"
                    )
                state.steps.append(Step(epoch, len(state.steps), number, int(lengths[rows].sum()), seconds))
                if self._on_step is not None:
                    self._on_step(state.steps[-1])
                if self._after_step is not None:
                    self._after_step()
                start = time.perf_counter()

    def _wrap(self, parameters: list[nn.Parameter]) -> None:
        """Processes agree on what is trained when they wrap the model: once more, where layers have thawed since."""
        trained = [parameter.requires_grad for parameter in parameters]
        if trained != self._trained:
            if self._forward is not self._state.model:
                # What wraps it now would average the gradients as well, until it is gone, and it is in a cycle.
                self._forward = self._state.model
                gc.collect()
            self._forward = self._ranks.wrap(self._state.model)
            self._trained = trained

    def _backward(self, rows: np.ndarray, lowered: contextlib.AbstractContextManager[object]) -> torch.Tensor:
        """Adds these rows' gradients to the parameters'; the loss, or of several processes this one's share of it."""
        if self._ranks.size == 1:
            train, device = self._train, self._device
            inputs, _ = train.batch(rows, self._options.layout, device)
            targets, weights = train.targets_of(rows, device), train.weights_of(rows, device)
            with lowered:
                loss = self._objective(self._forward(*inputs), targets, weights)
            loss.backward()
        else:
            loss = self._loss_of_part(rows, lowered)
            (loss * self._ranks.size).backward()  # of which all processes' mean is taken
        return loss

    def _loss_of_part(self, rows: np.ndarray, lowered: contextlib.AbstractContextManager[object]) -> torch.Tensor:
        mine = self._ranks.part(rows)
        share = 1 if len(mine) else 0  # without a row, a process computes on another's, and counts it as nothing
        some = mine if share else rows[:1]
        train, device = self._train, self._device
        inputs, _ = train.batch(some, self._options.layout, device)
        with lowered:
            logits = self._forward(*inputs)
            targets = train.targets_of(some, device), train.targets_of(rows, device)
            weights = train.weights_of(some, device), train.weights_of(rows, device)
            return share * self._objective.of_part(logits, *targets, *weights)

    def _set_rates(self, epoch: int) -> None:
        per_epoch = len(self._batches)
        factor = self._options.schedule.factor(
            epoch * per_epoch + len(self._state.steps), self._options.epochs * per_epoch
        )
        for group, peak in zip(self._state.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor


@contextlib.contextmanager
def _deterministic(on: bool) -> Iterator[None]:
    if not on:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])

"""The processes of one training, what it leaves beside its model, and what it says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch
from rich.console import Console

from textclf_fast.cli.unfinished import UnfinishedTraining
from textclf_fast.training.distributed import Ranks

Result = TypeVar("Result")


class Job:
    """One training, by this process or as one of several, of which the first alone writes and prints; to be entered.

    Args:
        out: the model's directory.
        ranks: the processes.
        as_json: print one object at the end instead of lines.

    Attributes:
        out, ranks, as_json: as given.
        unfinished: what is kept until there is a model.
        console: for bars, and for lines above them.
        speaks: whether this process prints lines for people.
    """

    def __init__(self, out: Path, ranks: Ranks, as_json: bool) -> None:
        self.out = out
        self.ranks = ranks
        self.as_json = as_json
        self.unfinished = UnfinishedTraining(out)
        self.speaks = ranks.rank == 0 and not as_json
        self.console = Console(highlight=False, soft_wrap=True, stderr=as_json, quiet=ranks.rank > 0)

    def say(self, line: str) -> None:
        """Prints it, for people."""
        if self.speaks:
            print(line, flush=True)

    def check(self, overwrite: bool, resume: bool) -> None:
        """Says whether the training may begin, before the work rather than after it; see UnfinishedTraining.check."""

        def look() -> None:
            if self.ranks.rank == 0:
                self.unfinished.check(overwrite, resume)

        self.on_first_then_others(look)

    def on_first_then_others(self, work: Callable[[], Result]) -> Result:
        """By the first process, then by the others: what has to be fetched is fetched once.

        Where the first one fails, it says why, and the others end without a word.
        """
        failed = torch.zeros(1, dtype=torch.float64)
        if self.ranks.rank == 0:
            try:
                result = work()
            except BaseException:
                self.ranks.sum(failed + 1)
                raise
            self.ranks.sum(failed)
            return result
        if self.ranks.sum(failed):
            raise SystemExit(2)
        return work()

    def first_has(self, work: Callable[[], list[str]]) -> list[str]:
        """By the first process, for all of them."""
        texts = self.on_first_then_others(lambda: work() if self.ranks.rank == 0 else [])
        return list(json.loads(self.ranks.first_has(json.dumps(texts).encode())))

    @property
    def is_over(self) -> bool:
        """Whether there is a model, and nothing to go on with."""
        return self.unfinished.is_over

    def has_weights(self, distils: bool, generates: bool) -> bool:
        """Whether a training that is resumed has its model's weights, and need not read the texts again.

        Args:
            distils: it learns from a sentence encoder.
            generates: a language model generates texts for it, which are to be there as well.
        """
        kept = self.unfinished
        has = kept.checkpoint.exists() or (distils and kept.distilled.exists())
        found = self.ranks.rank == 0 and has and (kept.generated.exists() or not generates)
        return bool(self.ranks.sum(torch.tensor([found], dtype=torch.float64)))

    def say_it_is_over(self) -> None:
        """There is nothing to do."""
        if self.as_json and self.ranks.rank == 0:
            print(json.dumps({"model": str(self.out), "over": True}, ensure_ascii=False))
        self.say(f"{self.out}: the training is over")

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Whoever interrupts is told how to go on."""
        if isinstance(error, KeyboardInterrupt | SystemExit) and self.ranks.rank == 0 and self.unfinished.can_go_on:
            print(f"note: the same command with --resume goes on from {self.unfinished.directory}", file=sys.stderr)

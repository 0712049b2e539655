"""The directory beside a model's own, in which it comes into being."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path


class UnfinishedTraining:
    """``MODEL.training``: the checkpoint and the log of a training, until there is a model.

    Attributes:
        out: the model's directory.
        directory, checkpoint, log, guesses, distilled, generated: what is beside it.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.directory = out.resolve().with_name(f"{out.resolve().name}.training")
        self.checkpoint = self.directory / "checkpoint.safetensors"
        self.log = self.directory / "log.jsonl"
        self.guesses = self.directory / "guesses.safetensors"
        self.distilled = self.directory / "distilled.safetensors"
        self.generated = self.directory / "generated.safetensors"
        self._goes_on = False
        self._begun = False

    @property
    def _learnt(self) -> tuple[Path, ...]:
        """What there may be to go on with."""
        return self.checkpoint, self.guesses, self.distilled, self.generated

    def check(self, overwrite: bool, resume: bool) -> None:
        """Says whether a training may begin, or go on.

        Raises:
            OSError: as `check_target`; or there is an unfinished training, which is neither to go on nor to be thrown
                away.
        """
        from textclf_fast.training import check_target

        self._goes_on = resume
        check_target(self.out, overwrite or resume)
        if self.exists and not (overwrite or resume):
            raise FileExistsError(
                f"{self.directory}: holds an unfinished training: --resume goes on with it, --overwrite begins anew"
            )

    @property
    def is_over(self) -> bool:
        """Whether there is a model, and nothing to go on with."""
        return not self.exists and (self.out / "config.json").is_file()

    @property
    def exists(self) -> bool:
        """Whether there is something to go on with."""
        return any(path.exists() for path in self._learnt)

    @property
    def can_go_on(self) -> bool:
        """Whether what exists is of this training, and not of one that it was to replace."""
        return self.exists and (self._goes_on or self._begun)

    def begin(self, resume: bool) -> None:
        """Makes the directory; the first time without what an earlier training left, unless that is to go on."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not (resume or self._begun):
            for path in self._learnt:
                path.unlink(missing_ok=True)
        self._begun = True

    def remove(self) -> None:
        """Deletes what this made, and the directory if nothing else is in it."""
        for path in (self.log, *self._learnt, *self.directory.glob(f"*{self.checkpoint.name}*")):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.directory.rmdir()
        # What a process that was killed while it wrote the model has left beside it.
        for left in self.out.resolve().parent.glob(f".{self.out.resolve().name}.*.new"):
            shutil.rmtree(left, ignore_errors=True)

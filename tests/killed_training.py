"""Trains once, and once more with interruptions: ``python killed_training.py FOLDER train`` (or ``pretrain``).

One process imports torch, and forks for each training, before torch has made a thread.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

KILLS = 4
_SIGNALS = [*[signal.SIGKILL] * KILLS, signal.SIGINT, signal.SIGTERM]
_TOY = Path(__file__).parent / "text" / "toy.csv"
_SMALL = ("--embedding-dim", "12", "--hidden-dim", "12", "--lr", "0.01", "--dropout", "0.3", "--checkpoint-every", "4")
_OPTIONS = {
    "train": [
        *("--epochs", "6", "--batch-size", "8", "--schedule", "one-cycle", "--clip-norm", "1", "--patience", "12"),
        *("--monitor", "loss"),
    ],
    "pretrain": ["--epochs", "3", "--batch-size", "4", "--steps", "8", "--min-frequency", "1", "--held-out", "0.1"],
}


def _start(command: str, out: Path) -> int:
    """The number of a process that trains."""
    from textclf_fast.cli.app import main

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = main([command, str(_TOY), "--out", str(out), *_SMALL, *_OPTIONS[command], "--resume"])
        except SystemExit as error:
            status = int(error.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return pid


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _written(checkpoint: Path) -> int:
    try:
        return checkpoint.stat().st_ino
    except FileNotFoundError:
        return 0


def _main(folder: Path, command: str) -> None:
    import textclf_fast.cli.training_run
    import textclf_fast.training.pretraining  # noqa: F401

    statuses = [_status(_start(command, folder / "once"))]
    checkpoint = folder / "often.training" / "checkpoint.safetensors"
    for number in _SIGNALS:
        pid = _start(command, folder / "often")
        for _ in range(random.randint(1, 2)):  # checkpoints, so that every one of them gets a little further
            last = _written(checkpoint)
            while _written(checkpoint) == last:
                time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        os.kill(pid, number)
        statuses.append(_status(pid))
    statuses.append(_status(_start(command, folder / "often")))
    (folder / "statuses").write_text(" ".join(map(str, statuses)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])

"""The program: its sub-commands, and how it ends."""

from __future__ import annotations

import gc
import sys
from typing import Annotated

import typer

from textclf_fast.cli.autotune import autotune
from textclf_fast.cli.baseline import baseline
from textclf_fast.cli.calibrate import calibrate
from textclf_fast.cli.data import data
from textclf_fast.cli.demo import demo
from textclf_fast.cli.evaluate import evaluate
from textclf_fast.cli.export import export
from textclf_fast.cli.lr_find import lr_find
from textclf_fast.cli.predict import predict
from textclf_fast.cli.pretrain import pretrain
from textclf_fast.cli.serve import serve
from textclf_fast.cli.train import train

FAILED = 2
INTERRUPTED = 130  # what typer returns after Ctrl-C: 128 + SIGINT, as shells have it

app = typer.Typer(
    name="textclf-fast",
    help="Trains text classifiers on a fused embedding + LSTM, and predicts with them.",
    epilog="Exit status: 0 done; 1 a mistake in the program, with its traceback; 2 what the user can put right, in one "
    "line on standard error; 130 after Ctrl-C; 143 after SIGTERM while training.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command()(train)
app.command()(autotune)
app.command()(predict)
app.command()(serve)
app.command()(evaluate)
app.command()(calibrate)
app.command()(baseline)
app.command()(export)
app.command()(pretrain)
app.command()(lr_find)
app.command()(demo)
app.command()(data)


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False) -> None:
    """Prints versions, the CPU kernels chosen, whether CUDA kernels were built and loaded, and threads."""
    from textclf_fast.cli.info import info as print_info

    print_info(as_json)


def main(args: list[str] | None = None) -> int:
    """Runs the program with the arguments `args` (sys.argv by default) and returns its exit status.

    What a user can put right ends in one line on standard error and status 2. Anything else is a mistake in the
    program, and keeps its traceback.
    """
    # PyTorch brings some 170,000 objects, among which the collector of cycles would look for garbage again and again:
    # 5 % of a short command.
    gc.set_threshold(10_000)
    try:
        status = app(args=args, prog_name="textclf-fast", standalone_mode=False)
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        return _fail(message)
    if status == INTERRUPTED:
        return _fail("interrupted", INTERRUPTED)
    return status if isinstance(status, int) else 0


def _message(error: Exception) -> str | None:
    """What to tell the user, or None where the error is none of theirs."""
    from textclf_fast.text import DataError

    if isinstance(error, typer.TyperException):  # wrong usage: an unknown option, a missing argument
        return error.format_message()
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    return str(error) if isinstance(error, (DataError, FloatingPointError)) else None


def _fail(message: str, status: int = FAILED) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status

"""`textclf-fast pretrain`: texts without labels -> a language model, which `train --from` goes on from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from textclf_fast.cli.arguments import check_untouched, positive, share

if TYPE_CHECKING:
    from rich.console import Console

    from textclf_fast.training.pretraining import PretrainingEpoch, PretrainingStep


def pretrain(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|NAME...",
            help="Files of texts, .txt (one a line), .csv, .tsv or .jsonl, and names of data sets (see `data`): of "
            "labelled ones the texts to train on.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory to write the language model to; it is made.")],
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="LM",
            help="Begin a training with a language model that this wrote: its sizes and vocabulary hold.",
        ),
    ] = None,
    text: Annotated[str, typer.Option(help="Column of the texts, in files that have columns.")] = "text",
    epochs: Annotated[int, typer.Option(min=1, help="How often each text is seen, at most.")] = 3,
    minutes: Annotated[
        float | None, typer.Option(callback=positive, help="Stop training after so many minutes.")
    ] = None,
    tokenizer: Annotated[
        Literal["word", "cased", "character", "bpe"],
        typer.Option(help="What a text is split into; cased: words, capital letters marked."),
    ] = "word",
    vocab_size: Annotated[int, typer.Option(min=3, help="Most entries of the vocabulary.")] = 20_000,
    min_frequency: Annotated[int, typer.Option(min=1, help="Tokens seen less often are unknown.")] = 3,
    vectors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Begin with word vectors: of GloVe, word2vec or fastText (.txt, .vec, .bin, .gz), or by name: glove; "
            "or of a sentence encoder: minilm, or a directory. May be given several times.",
        ),
    ] = None,
    embedding_dim: Annotated[
        int, typer.Option(min=1, help="Numbers per token; with --vectors at least as many as those have.")
    ] = 128,
    hidden_dim: Annotated[int, typer.Option(min=1, help="Hidden units of the LSTM, in each direction.")] = 192,
    layers: Annotated[int, typer.Option(min=1, help="Layers of the LSTM; several with --forward alone.")] = 1,
    bidirectional: Annotated[
        bool, typer.Option("--bidirectional/--forward", help="Guess the words before as well as those after.")
    ] = True,
    dropout: Annotated[float, typer.Option(min=0, max=0.99, help="Share of the units dropped in training.")] = 0.1,
    lr: Annotated[float, typer.Option(callback=positive, help="Highest learning rate of Adam.")] = 4e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a step.")] = 32,
    steps: Annotated[int, typer.Option(min=2, help="Tokens of a row of a step.")] = 64,
    held_out: Annotated[
        float, typer.Option(callback=share, help="Share of the texts to measure the perplexity on.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial weights and of what is drawn.")] = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the training that was stopped or killed, with the same other options."
        ),
    ] = False,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints, beside that of each epoch.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model that is in the directory.")] = False,
) -> None:
    """Trains a language model: to guess each word from those before it, and each from those after it.

    The perplexity, on texts held out, is how many words the model is as good as choosing among. The texts are read one
    after the other, so they may be more than memory holds; their token ids lie in a temporary file meanwhile.

    While it trains, the checkpoint is in OUT.training beside OUT. After a crash the same command with --resume goes on,
    and ends with the same bits as if nothing had happened (without --minutes). So it does after Ctrl-C, which leaves a
    model of what was learned by then in OUT.
    """
    import torch
    from rich.console import Console

    from textclf_fast.cli.inputs import find_vectors
    from textclf_fast.cli.unfinished import UnfinishedTraining
    from textclf_fast.models import LanguageModel
    from textclf_fast.text import DataError, TokenFile, Vocabulary, tokenizer_for
    from textclf_fast.training.interrupts import StopSignals
    from textclf_fast.training.language_model_files import load_language_model, save_language_model
    from textclf_fast.training.pretraining import PretrainingOptions
    from textclf_fast.training.pretraining import pretrain as train_language_model
    from textclf_fast.training.pretraining_resume import PretrainingCheckpoints

    if bidirectional and layers > 1:
        raise DataError(f"--layers: {layers} layers can read in one direction alone: add --forward")
    unfinished = UnfinishedTraining(out)
    unfinished.check(overwrite, resume)  # before the work, not after it
    if resume and unfinished.is_over:
        print(f"{out}: the training is over")
        return
    options = PretrainingOptions(
        epochs=epochs, minutes=minutes, batch_size=batch_size, steps=steps, learning_rate=lr, seed=seed
    )
    texts = functools.partial(_texts, sources, text, held_out, _say_once())
    if start is None:
        try:
            split = tokenizer_for(tokenizer, texts(False), vocab_size)
        except DataError:  # of the texts, which it may read
            raise
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="'--vocab-size'") from error
        vocabulary = Vocabulary.build(map(split, texts(False)), vocab_size, min_frequency)
        torch.manual_seed(seed)
        initial = None
        if vectors:
            initial = find_vectors(vectors, vocabulary, split)
            print(initial)
            embedding_dim = max(embedding_dim, initial.dim)
        model = LanguageModel(
            len(vocabulary),
            embedding_dim,
            hidden_dim,
            num_layers=layers,
            bidirectional=bidirectional,
            dropout=dropout,
        )
        if initial is not None:
            initial.put_into(model.encoder.embedding, std=0.1)  # more would make scores of many tens
    else:
        check_untouched(
            pretrain,
            "comes from the language model with --from",
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            embedding_dim=embedding_dim,
            hidden_dim=hidden_dim,
            layers=layers,
            bidirectional=bidirectional,
            dropout=dropout,
            vectors=vectors,
        )
        saved = load_language_model(start)
        model, vocabulary, split = saved.model, saved.vocabulary, saved.tokenizer
    with tempfile.TemporaryDirectory(prefix="textclf-fast-") as folder:
        train, tested = (
            TokenFile.write(Path(folder) / name, texts(part), split, vocabulary)
            for name, part in (("train", False), ("held_out", True))
        )
        print(
            f"{len(train):,} texts of {train.num_tokens:,} tokens to train on, {len(tested):,} held out; "
            f"vocabulary of {len(vocabulary):,}"
        )
        console = Console(highlight=False, soft_wrap=True)
        unfinished.begin(resume)
        checkpoints = PretrainingCheckpoints(
            unfinished.checkpoint,
            checkpoint_every,
            resume,
            lambda epoch, step: print(f"goes on in epoch {epoch + 1}, after step {step}"),
        )
        with StopSignals() as signals, _Progress(console) as progress:
            records = train_language_model(
                model,
                train.tokens,
                tested.tokens,
                options,
                progress.on_step,
                lambda result: console.print(_line(result), markup=False),
                lambda: signals.asked,
                checkpoints,
            )
    extra = {
        "texts": list(sources),
        "vectors": " and ".join(vectors or []) or None,
        "tokens": train.num_tokens,
        "options": dataclasses.asdict(options),
        "epochs": [dataclasses.asdict(record) for record in records],
    }
    save_language_model(out, model, vocabulary, split, extra, overwrite or resume)
    print(f"{out}: perplexity {records[-1].perplexity:,.1f} on the texts held out")
    print(f"To use it: textclf-fast train FILE --from {shlex.quote(str(out))} --out DIR")
    if signals.asked:
        print("note: stopped; the same command with --resume goes on", file=sys.stderr)
        signals.stop()
    unfinished.remove()


def _say_once() -> Callable[[str], None]:
    """Prints a line to standard error unless it has done so before: the texts are read several times."""
    said: set[str] = set()

    def say(line: str) -> None:
        if line not in said:
            said.add(line)
            print(line, file=sys.stderr, flush=True)

    return say


def _texts(
    sources: Sequence[str], column: str, share: float, say: Callable[[str], None], held_out: bool
) -> Iterator[str]:
    """The texts of one part. Equal texts are in the same, wherever they are from."""
    from textclf_fast.cli.inputs import read_unlabelled
    from textclf_fast.text import DataError

    found = False
    for source in sources:
        for text in read_unlabelled(source, column, say):
            number = int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:8], "little")
            if (number < share * 2**64) == held_out:
                found = True
                yield text
    if not found:
        raise DataError(f"{', '.join(sources)}: too few texts: none to {'hold out' if held_out else 'train on'}")


class _Progress:
    """A bar for a training that has steps or minutes to do; nothing where the console is no terminal."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=1.0)

    def __enter__(self) -> _Progress:
        self._progress.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._progress.stop()

    def on_step(self, step: PretrainingStep) -> None:
        self._progress.update(
            self._task,
            completed=step.done,
            description=f"epoch {step.epoch + 1}, loss {step.loss:.2f}, {step.tokens / step.seconds:,.0f} tokens/s",
        )


def _line(result: PretrainingEpoch) -> str:
    return (
        f"epoch {result.epoch + 1}: loss {result.loss:.3f}, held-out perplexity {result.perplexity:,.1f}, "
        f"{result.seconds:,.0f} s, {result.tokens / result.seconds:,.0f} tokens/s"
    )

"""`textclf-fast train`: a file of labelled texts -> a model."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textclf_fast.cli import arguments, beyond_labels
from textclf_fast.cli.arguments import MODEL, OUTPUT, TRAINING, check_untouched, positive
from textclf_fast.cli.presets import use_preset

if TYPE_CHECKING:
    from textclf_fast.cli.beginnings import Beginning
    from textclf_fast.cli.teachers import Teachers

CHECKPOINTS = "Checkpoints"


def train(
    file: arguments.File,
    out: arguments.Out,
    preset: Annotated[
        Literal["little-data", "bag", "transfer"] | None,
        typer.Option(
            is_eager=True,
            callback=use_preset,
            help="Other defaults: little-data, an LSTM that some thousands of texts are enough for; bag, an MLP on the "
            "bag of words, for long texts on topics; transfer, for --from.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    text: arguments.Text = "text",
    label: arguments.Label = "label",
    group: arguments.Group = None,
    held_out: arguments.HeldOut = 0.2,
    tokenizer: arguments.Tokenizer = "word",
    vocab_size: arguments.VocabSize = 10_000,
    min_frequency: arguments.MinFrequency = 1,
    kind: Annotated[
        Literal["lstm", "mlp"],
        typer.Option("--model", help="An LSTM, or a perceptron on the bag of words.", rich_help_panel=MODEL),
    ] = "lstm",
    embedding_dim: Annotated[
        int,
        typer.Option(
            min=0,
            help="Numbers per token; 0, of an mlp: its first layer is on the bag of words itself.",
            rich_help_panel=MODEL,
        ),
    ] = 100,
    vectors: arguments.Vectors = None,
    embedding_std: Annotated[
        float,
        typer.Option(
            callback=positive,
            help="Of the initial word vectors; 0.1: rare words say little, which few labels are better off with.",
            rich_help_panel=MODEL,
        ),
    ] = 1.0,
    hidden_dim: Annotated[int, typer.Option(min=1, help="Hidden units of a layer.", rich_help_panel=MODEL)] = 128,
    layers: Annotated[int, typer.Option(min=1, help="Hidden layers.", rich_help_panel=MODEL)] = 1,
    bidirectional: Annotated[
        bool, typer.Option("--bidirectional", help="Read the texts backwards as well.", rich_help_panel=MODEL)
    ] = False,
    activation: Annotated[
        Literal["sigmoid", "relu"], typer.Option(help="Of an mlp's hidden layers.", rich_help_panel=MODEL)
    ] = "sigmoid",
    idf: Annotated[
        bool,
        typer.Option(
            "--idf",
            help="Of an mlp: a word counts the more, the fewer texts have it (inverse document frequency).",
            rich_help_panel=MODEL,
        ),
    ] = False,
    dropout: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the units dropped in training.", rich_help_panel=MODEL)
    ] = 0.0,
    language_model: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="LM",
            help="Begin with a language model that `pretrain` wrote: its sizes, tokenizer and vocabulary hold, the "
            "LSTM's states are pooled; try --preset transfer.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    lm_epochs: Annotated[
        int,
        typer.Option(
            min=0,
            help="With --from: how often the language model first sees the texts to train on.",
            rich_help_panel=TRAINING,
        ),
    ] = 3,
    layer_factor: Annotated[
        float,
        typer.Option(
            min=1,
            help="With --from: each layer's learning rate is that of the layer above it divided by this.",
            rich_help_panel=TRAINING,
        ),
    ] = 1.3,
    gradual: Annotated[
        bool,
        typer.Option(
            "--gradual",
            help="With --from: the first epoch trains the top layer alone, and each epoch one more.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    distil: beyond_labels.Distil = None,
    distil_epochs: beyond_labels.DistilEpochs = 10,
    unlabelled: beyond_labels.Unlabelled = None,
    teacher: beyond_labels.Teacher = None,
    teacher_epochs: beyond_labels.TeacherEpochs = 3,
    variants: beyond_labels.Variants = 0,
    generated: beyond_labels.Generated = 0,
    teachers: beyond_labels.Teachers = None,
    embedding_dropout: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the words dropped in training.", rich_help_panel=MODEL)
    ] = 0.0,
    weight_dropout: Annotated[
        float,
        typer.Option(
            min=0, max=0.99, help="Share of the LSTM's recurrent weights dropped in training.", rich_help_panel=MODEL
        ),
    ] = 0.0,
    pooling: Annotated[
        Literal["last", "max", "mean", "concat"],
        typer.Option(help="Which of the LSTM's states decide: the last, or over all words.", rich_help_panel=MODEL),
    ] = "last",
    epochs: Annotated[
        int, typer.Option(min=1, help="How often each text is seen, at most.", rich_help_panel=TRAINING)
    ] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts of a batch.", rich_help_panel=TRAINING)] = 32,
    lr: Annotated[
        float, typer.Option(callback=positive, help="Learning rate of Adam, at its highest.", rich_help_panel=TRAINING)
    ] = 1e-3,
    schedule: Annotated[
        Literal["constant", "one-cycle"],
        typer.Option(help="Of the learning rate; one-cycle: up, then down to 0.", rich_help_panel=TRAINING),
    ] = "constant",
    weight_decay: Annotated[float, typer.Option(min=0, help="AdamW's, decoupled.", rich_help_panel=TRAINING)] = 0.0,
    clip_norm: Annotated[
        float | None,
        typer.Option(callback=positive, help="Scale larger gradients down to this norm.", rich_help_panel=TRAINING),
    ] = None,
    label_smoothing: Annotated[
        float,
        typer.Option(min=0, max=0.99, help="Share of a label spread over all classes.", rich_help_panel=TRAINING),
    ] = 0.0,
    adversarial: Annotated[
        float,
        typer.Option(
            min=0,
            help="Train on each batch once more, its words moved so far against the model; try 0.02 to 0.1.",
            rich_help_panel=TRAINING,
        ),
    ] = 0.0,
    class_weights: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="balanced: all classes weigh the same, however rare; or LABEL=NUMBER,... (others: 1).",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after so many epochs without a better one.", rich_help_panel=TRAINING),
    ] = None,
    monitor: Annotated[
        Literal["accuracy", "loss"],
        typer.Option(help="What tells how good an epoch is, on the held-out texts.", rich_help_panel=TRAINING),
    ] = "accuracy",
    keep: Annotated[
        Literal["best", "last"], typer.Option(help="Which epoch's model is written.", rich_help_panel=TRAINING)
    ] = "best",
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Compute in bfloat16 under autocast.", rich_help_panel=TRAINING)
    ] = False,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", help="Refuse operations that differ from run to run.", rich_help_panel=TRAINING
        ),
    ] = False,
    seed: arguments.Seed = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the training that was stopped or killed, with the same other options.",
            rich_help_panel=CHECKPOINTS,
        ),
    ] = False,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between checkpoints, beside that of each epoch.", rich_help_panel=CHECKPOINTS),
    ] = None,
    overwrite: arguments.Overwrite = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write TensorBoard's event files there.", rich_help_panel=OUTPUT),
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Trains a classifier on a file of labelled texts and writes the best epoch's model.

    A part of the texts is held out: the model is tested on it after each epoch. Which texts these are does not depend
    on the seed; equal texts are never in both parts.

    While it trains, the checkpoint and the log are in OUT.training beside OUT. After Ctrl-C or a crash the same command
    with --resume goes on, and ends with the same bits as if nothing had happened. The log stays with the model, as
    log.jsonl; README.md beside it is the model's card: data, options, what was measured, machine, limits.

    Examples:

        textclf-fast train reviews.csv --text review --label stars --out model

        textclf-fast train rt --out model --epochs 30 --patience 3 --dropout 0.5 --schedule one-cycle

        textclf-fast train rt --out model --preset little-data

        textclf-fast train rt --out model --preset transfer --from lm

        textclf-fast train few.csv --out model --preset transfer --from lm --distil minilm --unlabelled many.txt

        textclf-fast train few.csv --out model --preset transfer --from lm --teacher minilm --unlabelled many.txt

        textclf-fast train trec --out model --preset transfer --from lm --teacher minilm --variants 5 --generated 10000

        torchrun --nproc-per-node 2 -m textclf_fast train rt --out model
    """
    from textclf_fast.cli.beginnings import FromScratch, Learnt
    from textclf_fast.cli.inputs import read_class_weights, read_data, unlabelled_texts
    from textclf_fast.cli.job import Job
    from textclf_fast.cli.teachers import Encoders, OwnKind
    from textclf_fast.cli.training_run import TrainingRun
    from textclf_fast.cli.training_start import TrainingStart
    from textclf_fast.judging.source import describe_source
    from textclf_fast.text import split
    from textclf_fast.text.sentence_vectors import find_encoder
    from textclf_fast.text.variants import make_variants
    from textclf_fast.training import Schedule, TrainingOptions
    from textclf_fast.training.distillation import DistillationOptions
    from textclf_fast.training.distributed import joined_ranks
    from textclf_fast.training.encoder_teacher import FineTuningOptions
    from textclf_fast.training.transfer import LayerwiseTraining

    options = TrainingOptions(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=lr,
        seed=seed,
        schedule=Schedule(schedule),
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        label_smoothing=label_smoothing,
        adversarial=adversarial,
        patience=patience,
        monitor=monitor,
        keep=keep,
        bfloat16=bf16,
        deterministic=deterministic,
    )
    sizes: dict[str, Any] = {
        "embedding_dim": embedding_dim,
        "hidden_dim": hidden_dim,
        "num_layers": layers,
        "dropout": dropout,
        "embedding_dropout": embedding_dropout,
        "embedding_std": embedding_std,
    }
    of_kinds: dict[str, dict[str, Any]] = {
        "lstm": {"bidirectional": bidirectional, "weight_dropout": weight_dropout, "pooling": pooling},
        "mlp": {"activation": activation, "idf": idf},
    }
    sizes.update(of_kinds.pop(kind))
    for other, of_other in of_kinds.items():
        check_untouched(train, f"is for --model {other}, not {kind}", **of_other)
    if kind == "mlp":
        sizes["embedding_dim"] = embedding_dim or None
        sizes["token_weights"] = sizes.pop("idf")
    elif embedding_dim == 0:
        raise typer.BadParameter(f"expected at least 1 with --model {kind}, got 0", param_hint="'--embedding-dim'")
    if vectors and sizes["embedding_dim"] is None:
        raise typer.BadParameter("expected an --embedding-dim other than 0 with it", param_hint="'--vectors'")
    if language_model is not None:
        if kind != "lstm":
            raise typer.BadParameter(f"expected lstm with --from, got {kind}", param_hint="'--model'")
        check_untouched(
            train,
            "comes from the language model with --from, or is as transfer has it",
            embedding_dropout=embedding_dropout,
            layers=layers,
            tokenizer=tokenizer,
            bidirectional=bidirectional,
            weight_dropout=weight_dropout,
            pooling=pooling,
            embedding_dim=embedding_dim,
            embedding_std=embedding_std,
            hidden_dim=hidden_dim,
            vocab_size=vocab_size,
            vectors=vectors,
        )
    if teacher is None:
        check_untouched(train, "is for --teacher", variants=variants, teacher_epochs=teacher_epochs)
    elif not (unlabelled or variants or generated):
        raise typer.BadParameter("expected --unlabelled, --variants or --generated with it", param_hint="'--teacher'")
    if language_model is None:
        check_untouched(train, "is for --from", generated=generated)
    with joined_ranks() as ranks, Job(out, ranks, as_json) as job:
        job.check(overwrite, resume)
        data = job.on_first_then_others(lambda: read_data(file, text, label, group))
        if resume and job.is_over:
            job.say_it_is_over()
            return
        options = dataclasses.replace(options, class_weights=read_class_weights(class_weights, data.classes))
        parts = split(data, held_out)
        source = describe_source(file, data, *parts, text=text, label=label, group=group, share=held_out)
        more = job.on_first_then_others(lambda: unlabelled_texts(unlabelled or [], text, parts))
        for encoder in dict.fromkeys(each for each in (distil, teacher) if each is not None):  # in one order everywhere
            job.on_first_then_others(partial(find_encoder, encoder))  # before the work
        start = TrainingStart(file, job)
        asked = [*more, *make_variants([*parts[0].texts, *more], variants, seed)]
        begin: Beginning
        if language_model is None:
            inputs = start.encode(parts, data.classes, tokenizer, vocab_size, min_frequency, vectors or [], more)
            begin = FromScratch({"kind": kind, **sizes}, idf)
        else:
            kept = resume and job.has_weights(distil is not None, generated > 0)
            first, inputs, lm = start.transfer(
                language_model, parts, data.classes, lm_epochs, seed, dropout, more, kept
            )
            asked += start.generate(lm, inputs, generated, [*parts[0].texts, *parts[1].texts, *asked], seed, resume)
            begin = Learnt(first, seed, lambda model: LayerwiseTraining(model, options, layer_factor, gradual))
        if distil is not None:
            how = DistillationOptions(distil_epochs, seed=seed)
            begin = start.distil(begin, inputs, [*parts[0].texts, *more], distil, how, resume)
        if asked:
            if teacher is None:
                staff: Teachers = OwnKind(begin, options, teachers or 3)
            else:
                texts = [part.texts for part in parts]
                staff = Encoders(teacher, texts, FineTuningOptions(teacher_epochs, seed=seed), teachers or 1)
            inputs = start.learn_from_guesses(inputs, staff, asked, unlabelled or [], variants, resume)
        model, thawing = begin(inputs, seed)
        run = TrainingRun(file, job)
        history = run.fit(model, inputs, options, resume, checkpoint_every, tensorboard, thawing)
        run.save(model, inputs, options, history, source, start.about, overwrite or resume)

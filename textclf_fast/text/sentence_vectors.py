"""Vectors of whole texts, by sentence encoders: transformers that others have trained, run by sentence-transformers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textclf_fast._libraries import BFLOAT16_ISAS, cpu_isa
from textclf_fast.text.catalogue import ENCODERS, is_named
from textclf_fast.text.datasets import Say, fetch
from textclf_fast.text.errors import DataError

_PICKLES = {".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth"}
_BATCH = 32
_BATCHES = 16  # between two reports of progress


def sentence_vectors(
    encoder: str | Path,
    texts: Sequence[str],
    on_progress: Callable[[int], None] | None = None,
    say: Say | None = None,
) -> NDArray[np.float32]:
    """The vectors that a sentence encoder gives some texts, on the CPU.

    Args:
        encoder: one of `ENCODERS`, fetched where it is not in the cache yet; or a directory that sentence-transformers
            has written, of its own modules alone, and with weights in .safetensors files alone.
        texts: n texts. Of long ones the encoder reads the beginning: "minilm" 256 of its tokens.
        on_progress: called with the number of texts that are done.
        say: as in `fetch`.

    Returns:
        (n, K) numbers, of products in bfloat16 where the processor multiplies it.

    Raises:
        DataError: there is no such encoder, or it cannot be loaded or used; sentence-transformers is not installed; or
            as `fetch`.
        ValueError: there are no texts.
    """
    if not texts:
        raise ValueError("texts: expected at least one, got none")
    return encode(load_encoder(encoder, say), encoder, texts, on_progress)


def encode(
    model: Any, encoder: str | Path, texts: Sequence[str], on_progress: Callable[[int], None] | None = None
) -> NDArray[np.float32]:
    """As `sentence_vectors`, by an encoder that is loaded already; `encoder` is its name."""
    # Texts of one length together: a batch is padded to its longest. The longest first, which takes the most memory.
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    parts = []
    for start in range(0, len(texts), _BATCH * _BATCHES):
        rows = order[start : start + _BATCH * _BATCHES]
        with lowered(), blamed(encoder, "cannot use it"):
            parts.append(model.encode([texts[row] for row in rows], batch_size=_BATCH, show_progress_bar=False))
        if on_progress is not None:
            on_progress(start + len(rows))
    found = np.concatenate(parts).astype(np.float32)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise DataError(f"{encoder}: expected one vector of finite numbers for each text, got others")
    vectors = np.empty_like(found)
    vectors[order] = found
    return vectors


def find_encoder(encoder: str | Path, say: Say | None = None) -> Path:
    """Where it is, its directory or one in a .zip file; what `sentence_vectors` needs is installed and fetched then.

    Raises:
        DataError: as `sentence_vectors`, but for what only loading shows.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise DataError(
            f"{encoder}: sentence-transformers, which runs sentence encoders, is not installed: "
            "pip install 'textclf_fast[distil]'"
        )
    if is_named(encoder, ENCODERS):
        return fetch(str(encoder), say)
    if not str(encoder) or not Path(encoder).is_dir():
        raise DataError(
            f"there is no directory {str(encoder)!r}, and no sentence encoder of that name, as {', '.join(ENCODERS)} is"
        )
    _check(Path(encoder))
    return Path(encoder)


def _check(directory: Path) -> None:
    """Refuses pickles, and modules that are not of sentence-transformers: loading them could run what they hold."""
    pickles = sorted(path for path in directory.rglob("*") if path.suffix in _PICKLES)
    if pickles:
        raise DataError(f"{pickles[0]}: expected weights in .safetensors files alone: a pickle can run code")
    modules = directory / "modules.json"
    try:
        kinds = [str(module["type"]) for module in json.loads(modules.read_bytes())] if modules.exists() else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{modules}: expected a list of modules, each with its type: {error}") from error
    if strange := [kind for kind in kinds if not kind.startswith("sentence_transformers.")]:
        raise DataError(f"{modules}: expected modules of sentence_transformers alone, got {strange[0]!r}")


def load_encoder(encoder: str | Path, say: Say | None = None) -> Any:
    """The encoder, a SentenceTransformer on the CPU, in eval mode.

    Args:
        encoder, say: as in `sentence_vectors`.

    Raises:
        DataError: as `sentence_vectors`.
    """
    found = find_encoder(encoder, say)
    if found.is_dir():
        return _load(encoder, found)
    with tempfile.TemporaryDirectory(prefix="textclf-fast-") as folder:
        with zipfile.ZipFile(found) as archive:  # its bytes are known: no name in it leads elsewhere
            archive.extractall(folder)
        return _load(encoder, Path(folder))


def _load(encoder: str | Path, directory: Path) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError as error:
        raise DataError(f"{encoder}: sentence-transformers cannot be imported: {error}") from error
    speaks = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of some 0.1 s, for each encoder
    try:
        with blamed(encoder, "cannot load it"):
            return SentenceTransformer(
                str(directory), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
            )
    finally:
        if speaks:
            logging.enable_progress_bar()


def lowered() -> contextlib.AbstractContextManager[object]:
    """Products in bfloat16, where the processor multiplies it: 2.5 times as fast on Zen 5, a cosine of 0.9999."""
    return torch.autocast("cpu", torch.bfloat16, enabled=cpu_isa() in BFLOAT16_ISAS)


@contextlib.contextmanager
def blamed(encoder: str | Path, what: str) -> Iterator[None]:
    """Makes a DataError of one line of whatever a library raises of an encoder that is unfit; there are many kinds."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise DataError(
            f"{encoder}: sentence-transformers {what}: {lines[0] if lines else type(error).__name__}"
        ) from error

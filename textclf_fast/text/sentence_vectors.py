"""Vectors of whole texts, by sentence encoders: transformers that others have trained, run by sentence-transformers."""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textclf_fast._libraries import BFLOAT16_ISAS, cpu_isa
from textclf_fast.text.catalogue import ENCODERS
from textclf_fast.text.datasets import Say, fetch
from textclf_fast.text.errors import DataError

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
            has written, its transformer's weights in a .safetensors file. Code that lies beside them is not run.
        texts: n texts. Of long ones the encoder reads the beginning: "minilm" 256 of its tokens.
        on_progress: called with the number of texts that are done.
        say: as in `fetch`.

    Returns:
        (n, K) numbers, of products in bfloat16 where the processor multiplies it.

    Raises:
        DataError: there is no such encoder, or it cannot be loaded; sentence-transformers is not installed; or as
            `fetch`.
        ValueError: there are no texts.
    """
    if not texts:
        raise ValueError("texts: expected at least one, got none")
    with _directory(encoder, say) as directory:
        model = _load(encoder, directory)
    # Texts of one length together: a batch is padded to its longest. The longest first, which takes the most memory.
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    parts = []
    for start in range(0, len(texts), _BATCH * _BATCHES):
        rows = order[start : start + _BATCH * _BATCHES]
        # In bfloat16, where the processor multiplies it: 2.5 times as fast on Zen 5, a cosine of 0.9999 to float32.
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_isa() in BFLOAT16_ISAS):
            parts.append(model.encode([texts[row] for row in rows], batch_size=_BATCH, show_progress_bar=False))
        if on_progress is not None:
            on_progress(start + len(rows))
    found = np.concatenate(parts).astype(np.float32)
    vectors = np.empty_like(found)
    vectors[order] = found
    return vectors


@contextlib.contextmanager
def _directory(encoder: str | Path, say: Say | None) -> Iterator[Path]:
    """Where its files are, as long as this is entered."""
    if str(encoder) not in ENCODERS or Path(encoder).exists():
        if not Path(encoder).is_dir():
            raise DataError(
                f"there is no directory {encoder}, and no sentence encoder of that name, as {', '.join(ENCODERS)} is"
            )
        yield Path(encoder)
        return
    packed = fetch(str(encoder), say)
    with tempfile.TemporaryDirectory(prefix="textclf-fast-") as folder:
        with zipfile.ZipFile(packed) as archive:  # its bytes are known: no name in it leads elsewhere
            archive.extractall(folder)
        yield Path(folder)


def _load(encoder: str | Path, directory: Path) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError as error:
        raise DataError(
            f"{encoder}: sentence-transformers, which runs sentence encoders, is not installed ({error}): "
            "pip install 'textclf_fast[distil]'"
        ) from error
    speaks = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of some 0.1 s, for each encoder
    try:
        return SentenceTransformer(
            str(directory), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    except Exception as error:  # of whatever kind; there are many
        lines = str(error).strip().splitlines()
        raise DataError(
            f"{encoder}: sentence-transformers cannot load it: {lines[0] if lines else type(error).__name__}"
        ) from error
    finally:
        if speaks:
            logging.enable_progress_bar()

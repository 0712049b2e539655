"""Vectors of texts: of a tiny encoder, and of minilm where it is in the cache."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_encoder import encoder as encoder
from tiny_encoder import write_encoder

from textclf_fast.text import ENCODERS, DataError
from textclf_fast.text.datasets import cache_directory
from textclf_fast.text.sentence_vectors import sentence_vectors

TEXTS = ["a good film", "bad", "the film is awful and it is bad", "fine", "good", "is it a film?", "film film film"]


def test_each_text_has_its_own(encoder: Path) -> None:
    """Whatever the order, and whoever is in its batch: of more texts than one batch and one report have."""
    texts = [f"{TEXTS[row % len(TEXTS)]}{' film' * (row % 5)}" for row in range(700)]
    done: list[int] = []
    found = sentence_vectors(encoder, texts, done.append)
    assert (found.shape, found.dtype) == ((700, 16), np.float32)
    assert done == [512, 700]
    for row in (0, 1, 2, 300, 699):
        alone = sentence_vectors(encoder, [texts[row]])[0]
        np.testing.assert_allclose(found[row], alone, atol=0.05)  # of numbers of 1 and more, in bfloat16
    assert np.abs(found[0] - found[1]).max() > 0.15


def test_what_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no directory nowhere, and no sentence encoder of that name, as mini"):
        sentence_vectors("nowhere", TEXTS)
    pytest.importorskip("sentence_transformers")
    with pytest.raises(DataError, match=r"^.*sentence-transformers cannot load it: [^\n]*$"):
        sentence_vectors(tmp_path, TEXTS)
    with pytest.raises(ValueError, match="texts: expected at least one, got none"):
        sentence_vectors(tmp_path, [])


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    write_encoder(tmp_path / "encoder", safetensors=False)
    with pytest.raises(DataError, match=r"cannot load it: .*safetensors"):
        sentence_vectors(tmp_path / "encoder", TEXTS)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(DataError, match=r"is not installed .*: pip install 'textclf_fast\[distil\]'"):
        sentence_vectors(tmp_path, TEXTS)


@pytest.mark.network
def test_minilm(capsys: pytest.CaptureFixture[str]) -> None:
    if not (cache_directory() / f"minilm{ENCODERS['minilm'].suffix}").is_file():
        pytest.skip("not in the cache, and large: textclf-fast data minilm")
    pytest.importorskip("sentence_transformers")
    vectors = sentence_vectors("minilm", ["A good film.", "I liked this movie.", "Stocks fell on Tuesday."])
    assert vectors.shape == (3, 384)
    near, far, _ = (vectors @ vectors.T)[np.triu_indices(3, 1)]
    assert near > 0.6 > 0.2 > far
    assert "Loading" not in capsys.readouterr().err

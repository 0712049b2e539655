"""Vectors of texts: of a tiny encoder, and of minilm where it is in the cache."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoder import encoder as encoder
from tiny_encoder import write_encoder

from textclf_fast._libraries import CPU_ISAS
from textclf_fast.text import ENCODERS, DataError
from textclf_fast.text.datasets import cache_directory
from textclf_fast.text.sentence_vectors import sentence_vectors

TEXTS = ["a good film", "bad", "the film is awful and it is bad", "fine", "good", "is it a film?", "film film film"]


def test_each_text_has_its_own(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order, and whoever is in its batch: of more texts than one batch and one report have."""
    monkeypatch.setattr("textclf_fast.text.sentence_vectors.BFLOAT16_ISAS", ())  # in float32
    texts = [f"{TEXTS[row % len(TEXTS)]}{' film' * (row % 5)}" for row in range(700)]
    done: list[int] = []
    found = sentence_vectors(encoder, texts, done.append)
    assert (found.shape, found.dtype) == ((700, 16), np.float32)
    assert done == [512, 700]
    for row in (0, 1, 2, 300, 699):
        np.testing.assert_allclose(found[row], sentence_vectors(encoder, [texts[row]])[0], atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.15


def test_in_bfloat16(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for sets in ((), CPU_ISAS):
        monkeypatch.setattr("textclf_fast.text.sentence_vectors.BFLOAT16_ISAS", sets)
        found.append(sentence_vectors(encoder, TEXTS))
    exact, near = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in found)
    assert not np.array_equal(exact, near)
    assert (exact * near).sum(1).min() > 0.999


def test_what_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no directory 'nowhere', and no sentence encoder of that name, as"):
        sentence_vectors("nowhere", TEXTS)
    pytest.importorskip("sentence_transformers")
    with pytest.raises(DataError, match=r"^.*sentence-transformers cannot load it: [^\n]*$"):
        sentence_vectors(tmp_path, TEXTS)
    with pytest.raises(ValueError, match="texts: expected at least one, got none"):
        sentence_vectors(tmp_path, [])


def test_pickled_weights_are_not_loaded(tmp_path: Path, encoder: Path) -> None:
    """Neither the transformer's nor those of a module behind it."""
    write_encoder(tmp_path / "encoder", safetensors=False)
    with pytest.raises(DataError, match=r"pytorch_model.bin: expected weights in .safetensors files alone"):
        sentence_vectors(tmp_path / "encoder", TEXTS)
    other = tmp_path / "other"
    shutil.copytree(encoder, other)
    (other / "2_Dense").mkdir()
    (other / "2_Dense" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"2_Dense/pytorch_model.bin: expected weights in .safetensors files alone"):
        sentence_vectors(other, TEXTS)


def test_code_beside_the_weights_does_not_run(tmp_path: Path, encoder: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(encoder, other)
    modules = json.loads((other / "modules.json").read_text())
    (other / "evil.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\nclass Thing: pass\n")
    (other / "modules.json").write_text(json.dumps([*modules, {**modules[0], "type": "evil.Thing", "path": ""}]))
    with pytest.raises(DataError, match=r"modules.json: expected modules of sentence_transformers alone, got 'evil"):
        sentence_vectors(other, TEXTS)
    assert not (tmp_path / "it ran").exists()
    (other / "modules.json").write_text("{")
    with pytest.raises(DataError, match=r"modules.json: expected a list of modules"):
        sentence_vectors(other, TEXTS)


def test_an_encoder_that_fits_nothing(tmp_path: Path, encoder: Path) -> None:
    """Fewer words in its table than its tokenizer knows; and numbers that are none."""
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(encoder, other)
    weights = load_file(other / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name][:] = float("nan")
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="expected one vector of finite numbers for each text, got others"):
        sentence_vectors(other, TEXTS)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "vocab_size": 5}))
    save_file({**weights, name: torch.zeros(5, 16)}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"^.*sentence-transformers cannot use it: [^\n]*$"):
        sentence_vectors(other, TEXTS)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sentence_transformers" else find_spec(name)
    )
    with pytest.raises(DataError, match=r"is not installed: pip install 'textclf_fast\[distil\]'"):
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

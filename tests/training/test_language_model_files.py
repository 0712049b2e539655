"""A language model on disk: what is read is what was written, and it is not taken for a classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from textclf_fast.models import LanguageModel
from textclf_fast.text import DataError, Vocabulary, WordTokenizer
from textclf_fast.training import load_model, save_model
from textclf_fast.training.language_model_files import load_language_model, save_language_model

VOCABULARY = Vocabulary(["<pad>", "<unk>", "the", "film"])


def save(folder: Path, **options: Any) -> LanguageModel:
    model = LanguageModel(4, 6, 8, **options)
    save_language_model(folder, model, VOCABULARY, WordTokenizer(), {"note": "naïve"})
    return model


@pytest.mark.parametrize("options", [{"num_layers": 2, "dropout": 0.5}, {"bidirectional": True}])
def test_round_trip(tmp_path: Path, options: dict[str, Any]) -> None:
    model = save(tmp_path / "new" / "lm", **options).eval()
    saved = load_language_model(tmp_path / "new" / "lm")
    assert (saved.vocabulary, saved.tokenizer.config, saved.extra) == (VOCABULARY, {"kind": "word"}, {"note": "naïve"})
    assert saved.model.config == model.config
    assert not saved.model.training
    ids = torch.tensor([[2, 3], [3, 1]])
    for ours, theirs in zip(saved.model.scores(saved.model(ids)[0]), model.scores(model(ids)[0]), strict=True):
        assert torch.equal(ours, theirs)


def test_one_is_not_the_other(tmp_path: Path, toy: Any) -> None:
    save(tmp_path / "lm")
    save_model(tmp_path / "model", toy.model(), toy.vocabulary, toy.labels)
    with pytest.raises(DataError, match=r"config\.json: not the configuration of a textclf_fast text classifier"):
        load_model(tmp_path / "lm")
    with pytest.raises(DataError, match=r"config\.json: not the configuration of a textclf_fast language model"):
        load_language_model(tmp_path / "model")


def test_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vocabulary: expected 5 tokens \(vocab_size\), got 4"):
        save_language_model(tmp_path / "lm", LanguageModel(5, 6, 8), VOCABULARY, WordTokenizer())
    assert not (tmp_path / "lm").exists()
    save(tmp_path / "lm")
    path = tmp_path / "lm" / "config.json"
    config = json.loads(path.read_text())
    config["model"]["hidden_dim"] = 9
    path.write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"the files do not fit together: .*size mismatch"):
        load_language_model(tmp_path / "lm")
    config["format_version"] = 2
    path.write_text(json.dumps(config))
    with pytest.raises(DataError, match="is of format version 2, expected 1"):
        load_language_model(tmp_path / "lm")

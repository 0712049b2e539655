"""A model to predict with, of the user's recipe on rt; its weights are random, since only its speed is looked at."""

from __future__ import annotations

from pathlib import Path

import torch

from textclf_fast.models import TextClassifier
from textclf_fast.storage import save_model
from textclf_fast.text import LabelledTexts, Vocabulary, WordTokenizer, load_dataset


def write_model(directory: Path) -> LabelledTexts:
    """Writes it, and returns the texts that its vocabulary is of: all of rt."""
    data = load_dataset("rt", "train")
    vocabulary = Vocabulary.build(map(WordTokenizer(), data.texts), 10_000)
    torch.manual_seed(0)
    save_model(directory, TextClassifier(len(vocabulary), 100, 128, len(data.classes)), vocabulary, data.classes)
    return data


def of_words(texts: list[str], words: int) -> list[str]:
    """Those of so many words."""
    return [text for text in texts if len(text.split()) == words]

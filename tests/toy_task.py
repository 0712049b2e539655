"""A toy task: 200 sentences, two classes; `toy` is a fixture where a conftest imports it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from textclf_fast import TextClassifier
from textclf_fast.text import Vocabulary, WordTokenizer, read_labelled
from textclf_fast.training import EncodedTexts


class Toy(NamedTuple):
    texts: list[str]
    labels: list[str]
    vocabulary: Vocabulary
    data: EncodedTexts

    def model(self, seed: int = 0, **options: float) -> TextClassifier:
        torch.manual_seed(seed)
        return TextClassifier(len(self.vocabulary), 16, 16, 2, **options)


@pytest.fixture(scope="session")
def toy() -> Toy:
    data = read_labelled(Path(__file__).parent / "text" / "toy.csv")
    tokenizer = WordTokenizer()
    vocabulary = Vocabulary.build(map(tokenizer, data.texts))
    encoded = EncodedTexts.from_texts(data, data.classes, vocabulary, tokenizer)
    return Toy(data.texts, data.classes, vocabulary, encoded)

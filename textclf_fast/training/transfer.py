"""Transfer: a classifier that begins with what a language model has learnt, and its training.

J. Howard and S. Ruder, Universal Language Model Fine-tuning for Text Classification, ACL 2018: a language model is
pre-trained on any text (:mod:`textclf_fast.training.pretraining`), trained on with the texts of the task, and its
encoder goes into a classifier, which is trained from its top downwards, lower layers more slowly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from textclf_fast.models import LanguageModel, TextClassifier
from textclf_fast.optim import DeferredAdam
from textclf_fast.text import Vocabulary, encode_texts
from textclf_fast.training.encoded import EncodedTexts
from textclf_fast.training.loop import EpochResult, History, Step, TrainingOptions, fit
from textclf_fast.training.language_model_files import SavedLanguageModel
from textclf_fast.training.pretraining import PretrainingOptions, cycle, make_stream, pretrain

# A task's own texts are few: more dropout than in pre-training.
_FINE_TUNING_DROPOUTS = {"dropout": 0.3, "embedding_dropout": 0.05, "weight_dropout": 0.1}


@dataclass(frozen=True)
class FineTuningOptions:
    """How to train a classifier that came from a language model.

    Attributes:
        epochs, batch_size, seed: as in `TrainingOptions`.
        learning_rate: Adam's for the topmost group of `layer_groups`, the highest of a cycle (`cycle`) over all epochs.
        layer_factor: each group's rate is the one above it divided by this.
        gradual: the first epoch trains the topmost group alone, and each epoch one more; otherwise all from the
            beginning.

    Raises:
        ValueError: a number out of range.
    """

    epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 4e-3
    layer_factor: float = 2.6
    gradual: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        self.training()  # refuses what is out of range
        if not (math.isfinite(self.layer_factor) and self.layer_factor >= 1):
            raise ValueError(f"layer_factor: expected at least 1, got {self.layer_factor}")

    def training(self) -> TrainingOptions:
        """What of it the training loop takes."""
        return TrainingOptions(
            epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate, seed=self.seed
        )


# ---- From one vocabulary to another ----------------------------------------------------------------


def extend_vocabulary(
    vocabulary: Vocabulary, token_lists: Iterable[Sequence[str]], min_frequency: int = 2
) -> Vocabulary:
    """The vocabulary with the words of other texts that it lacks behind its own, the most frequent first.

    Args:
        token_lists: the tokens of each text.
        min_frequency: words seen less often are left out.
    """
    counts = Counter(token for tokens in token_lists for token in tokens if token not in vocabulary)
    new = sorted((token for token, count in counts.items() if count >= min_frequency), key=lambda t: (-counts[t], t))
    return Vocabulary([*vocabulary.tokens, *new])


def change_vocabulary(model: LanguageModel, old: Vocabulary, new: Vocabulary, **options: Any) -> LanguageModel:
    """A copy of a language model for another vocabulary; a word that the old one lacks has the mean of all vectors.

    Args:
        model: of the words of `old`.
        options: to differ from the model's own, such as its dropouts.

    Raises:
        ValueError: `old` is not the model's.
    """
    if len(old) != model.config["vocab_size"]:
        raise ValueError(f"old: expected the {model.config['vocab_size']} tokens of the model, got {len(old)}")
    changed = LanguageModel(**{**model.config, **options, "vocab_size": len(new)})
    places = torch.from_numpy(old.encode(new.tokens))
    lacking = torch.tensor([token not in old for token in new.tokens])
    weights = model.state_dict()
    for name in ("encoder.embedding.weight", "bias"):
        rows = weights[name][places]
        rows[lacking] = weights[name].mean(0)
        weights[name] = rows
    changed.load_state_dict(weights)
    return changed


# ---- The classifier --------------------------------------------------------------------------------


def classifier_from(model: LanguageModel, output_dim: int, **options: Any) -> TextClassifier:
    """A classifier with a copy of the language model's embedding and LSTM, and a new linear layer.

    Args:
        model: whose vocabulary the classifier has.
        output_dim: C.
        options: of TextClassifier, other than the sizes.
    """
    config = model.config
    sizes = {name: config[name] for name in ("vocab_size", "embedding_dim", "hidden_dim", "num_layers", "bidirectional")}
    classifier = TextClassifier(**sizes, output_dim=output_dim, **options)
    classifier.encoder.load_state_dict(model.encoder.state_dict())
    return classifier


def transfer(
    saved: SavedLanguageModel,
    texts: Sequence[str],
    output_dim: int,
    *,
    epochs: int = 3,
    seed: int = 0,
    **options: Any,
) -> tuple[TextClassifier, Vocabulary]:
    """From a language model to a classifier for a task, still to be trained with its labels (`fine_tune`).

    Args:
        saved: what `load_language_model` gives.
        texts: of the task, those to train on and any without a label; their frequent words join the vocabulary.
        output_dim: C.
        epochs: how often the language model is first trained on with these texts; 0: not at all.
        seed: of that training and of the initial weights.
        options: of TextClassifier, as in `classifier_from`.

    Returns:
        the classifier and its vocabulary.
    """
    vocabulary = extend_vocabulary(saved.vocabulary, map(saved.tokenizer, texts))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = change_vocabulary(saved.model, saved.vocabulary, vocabulary, **_FINE_TUNING_DROPOUTS)
        if epochs:
            stream = make_stream(encode_texts(texts, saved.tokenizer, vocabulary), seed)
            pretrain(model, stream, None, PretrainingOptions(epochs=epochs, learning_rate=2e-3, seed=seed))
        return classifier_from(model, output_dim, **options), vocabulary


def layer_groups(model: TextClassifier) -> list[list[nn.Parameter]]:
    """The parameters from the top downwards: what is not of the encoder, each layer of the LSTM, the embedding."""
    encoder = model.encoder
    inner = {id(parameter) for parameter in encoder.parameters()}
    layers: list[list[nn.Parameter]] = [[] for _ in range(encoder.lstm.num_layers)]
    for name, parameter in encoder.lstm.named_parameters():
        suffix = name.removesuffix("_reverse").rpartition("_l")[2]  # weight_hh_l0_reverse: layer 0
        layers[int(suffix) if suffix.isdecimal() else 0].append(parameter)
    head = [parameter for parameter in model.parameters() if id(parameter) not in inner]
    return [head, *reversed(layers), list(encoder.embedding.parameters())]


def fine_tune(
    model: TextClassifier,
    train: EncodedTexts,
    held_out: EncodedTexts,
    options: FineTuningOptions | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
) -> History:
    """Trains as `fit` does, with a learning rate for each of `layer_groups`, in one cycle, and gradual unfreezing.

    Raises:
        ValueError, FloatingPointError: as `fit`.
    """
    options = options or FineTuningOptions()
    groups = layer_groups(model)
    rates = [options.learning_rate / options.layer_factor**depth for depth in range(len(groups))]
    optimizer = DeferredAdam([{"params": group} for group in groups], model, lr=options.learning_rate)
    all_steps = options.epochs * -(-len(train) // options.batch_size)
    steps = 0

    def set_rates() -> None:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * cycle(steps / all_steps)

    def train_top(count: int) -> None:
        for depth, group in enumerate(groups):
            for parameter in group:
                parameter.requires_grad_(depth < count)

    def after_step(step: Step) -> None:
        nonlocal steps
        steps += 1
        set_rates()
        if on_step is not None:
            on_step(step)

    def after_epoch(result: EpochResult) -> None:
        if options.gradual:
            train_top(result.epoch + 2)
        if on_epoch is not None:
            on_epoch(result)

    set_rates()
    train_top(1 if options.gradual else len(groups))
    try:
        return fit(model, train, held_out, options.training(), after_step, after_epoch, optimizer=optimizer)
    finally:
        train_top(len(groups))

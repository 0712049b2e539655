"""Transfer: a classifier that begins with what a language model has learnt, and its training.

J. Howard and S. Ruder, Universal Language Model Fine-tuning for Text Classification, ACL 2018: a language model is
pre-trained on any text (:mod:`textclf_fast.training.pretraining`), trained on with the texts of the task, and its
encoder goes into a classifier, which is trained from its top downwards, lower layers more slowly.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from textclf_fast.models import LanguageModel, TextClassifier
from textclf_fast.optim import DeferredAdam
from textclf_fast.text import Vocabulary, encode_texts
from textclf_fast.training.encoded import EncodedTexts
from textclf_fast.training.language_model_files import SavedLanguageModel
from textclf_fast.training.loop import fit
from textclf_fast.training.options import TrainingOptions
from textclf_fast.training.pretraining import PretrainingOptions, make_stream, pretrain
from textclf_fast.training.results import EpochResult, History, Step
from textclf_fast.training.schedules import Schedule

# A task's own texts are few: more dropout than in pre-training.
_DROPOUTS = {"dropout": 0.3, "embedding_dropout": 0.05, "weight_dropout": 0.1}
# What a transferred classifier has besides its sizes, beside a dropout of some 0.4; as in AWD-LSTM's and ULMFiT's.
TRANSFERRED: dict[str, Any] = {
    "pooling": "concat",
    "embedding_dropout": 0.1,
    "weight_dropout": 0.2,
    "variational_dropout": (0.2, 0.0),
    "sparse": True,
}
FINE_TUNING = TrainingOptions(epochs=6, learning_rate=4e-3, schedule=Schedule("one-cycle", warmup=0.1))


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
    sizes = {
        name: config[name] for name in ("vocab_size", "embedding_dim", "hidden_dim", "num_layers", "bidirectional")
    }
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
) -> tuple[TextClassifier, SavedLanguageModel]:
    """From a language model to a classifier for a task, still to be trained with its labels (`fine_tune`).

    Args:
        saved: what `load_language_model` gives.
        texts: of the task, those to train on and any without a label; their frequent words join the vocabulary.
        output_dim: C.
        epochs: how often the language model is first trained on with these texts; 0: not at all.
        seed: of that training and of the initial weights.
        options: of TextClassifier, as in `classifier_from`.

    Returns:
        the classifier, and the language model that it comes from, which has its vocabulary.
    """
    vocabulary = extend_vocabulary(saved.vocabulary, map(saved.tokenizer, texts))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = change_vocabulary(saved.model, saved.vocabulary, vocabulary, **_DROPOUTS)
        if epochs:
            stream = make_stream(encode_texts(texts, saved.tokenizer, vocabulary), seed)
            pretrain(model, stream, None, PretrainingOptions(epochs=epochs, learning_rate=2e-3, seed=seed))
        adapted = dataclasses.replace(saved, model=model.eval(), vocabulary=vocabulary)
        return classifier_from(model, output_dim, **options), adapted


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


class LayerwiseTraining:
    """How the layers of a transferred classifier are trained: each at a rate of its own, and from the top downwards.

    Args:
        model: the classifier.
        options: whose learning rate is that of the topmost of `layer_groups`.
        layer_factor: each group's rate is the one above it divided by this. Howard and Ruder take 2.6, for three layers
            that have read 100 million words.
        gradual: the first epoch trains the topmost group alone, and each epoch one more, as theirs; otherwise all from
            the beginning. After 2.7 million words of pre-training, 1,000 labelled sentences of rt gave 58.4 % in 6
            epochs with theirs, both together, and 66.8 % in 8 with these defaults, one seed each: which of the
            differences it was has not been measured.

    Attributes:
        optimizer: for `fit`.

    Raises:
        ValueError: layer_factor below 1.
    """

    def __init__(
        self, model: TextClassifier, options: TrainingOptions, layer_factor: float = 1.3, gradual: bool = False
    ) -> None:
        if not (math.isfinite(layer_factor) and layer_factor >= 1):
            raise ValueError(f"layer_factor: expected at least 1, got {layer_factor}")
        self._groups = layer_groups(model)
        self._gradual = gradual
        self.optimizer = DeferredAdam(
            [
                {"params": group, "lr": options.learning_rate / layer_factor**depth}
                for depth, group in enumerate(self._groups)
            ],
            model,
            weight_decay=options.weight_decay,
            decoupled_weight_decay=True,
        )

    def begin_epoch(self, epoch: int) -> None:
        """To be called before each epoch, from 0."""
        self._train(epoch + 1 if self._gradual else len(self._groups))

    def end(self) -> None:
        """Leaves all layers to be trained by whoever comes next."""
        self._train(len(self._groups))

    def _train(self, count: int) -> None:
        for depth, group in enumerate(self._groups):
            for parameter in group:
                parameter.requires_grad_(depth < count)


def fit_by_layers(
    model: nn.Module,
    train: EncodedTexts,
    held_out: EncodedTexts,
    options: TrainingOptions,
    layers: LayerwiseTraining | None,
    on_step: Callable[[Step], None] | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    **others: Any,
) -> History:
    """`fit`, of all layers alike, or as `layers` say; `others`: of its arguments."""
    if layers is None:
        return fit(model, train, held_out, options, on_step, on_epoch, **others)

    def after_epoch(result: EpochResult) -> None:
        layers.begin_epoch(result.epoch + 1)
        if on_epoch is not None:
            on_epoch(result)

    layers.begin_epoch(0)
    return fit(model, train, held_out, options, on_step, after_epoch, optimizer=layers.optimizer, **others)


def fine_tune(
    model: TextClassifier,
    train: EncodedTexts,
    held_out: EncodedTexts,
    options: TrainingOptions = FINE_TUNING,
    on_step: Callable[[Step], None] | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    *,
    layer_factor: float = 1.3,
    gradual: bool = False,
) -> History:
    """Trains a classifier that came from a language model, as `fit` does, by `LayerwiseTraining`.

    Raises:
        ValueError, FloatingPointError: as `fit` and `LayerwiseTraining`.
    """
    layers = LayerwiseTraining(model, options, layer_factor, gradual)
    try:
        return fit_by_layers(model, train, held_out, options, layers, on_step, on_epoch)
    finally:
        layers.end()

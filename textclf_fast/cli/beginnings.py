"""What a training begins with: new weights, or what has learnt from texts without labels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch

from textclf_fast.cli.inputs import Inputs
from textclf_fast.models import Classifier, MLPClassifier, inverse_document_frequency, make_classifier
from textclf_fast.training.transfer import LayerwiseTraining

Layers = Callable[[Any], LayerwiseTraining]


class Beginning(Protocol):
    """Makes a classifier to be trained on some inputs, from a seed; and how its layers are, where that is special."""

    layers: Layers | None

    def __call__(self, inputs: Inputs, seed: int) -> tuple[Classifier, LayerwiseTraining | None]: ...


class FromScratch:
    """New weights, and word vectors where there are any.

    Args:
        config: of `make_classifier`, but for the sizes of vocabulary and output.
        idf: the words of an mlp are weighted by the texts to train on.
    """

    layers: Layers | None = None

    def __init__(self, config: dict[str, Any], idf: bool = False) -> None:
        self._config = config
        self._idf = idf

    def __call__(self, inputs: Inputs, seed: int) -> tuple[Classifier, LayerwiseTraining | None]:
        config = {**self._config, "vocab_size": len(inputs.vocabulary), "output_dim": len(inputs.labels)}
        if inputs.vectors is not None:
            config["embedding_dim"] = max(config["embedding_dim"], inputs.vectors.dim)
        torch.manual_seed(seed)
        model = make_classifier({**config, "sparse": True})
        if inputs.vectors is not None:
            inputs.vectors.put_into(model.embedding)
        if self._idf:
            assert isinstance(model, MLPClassifier)  # the option is for no other
            tokens = inputs.parts[0].tokens
            model.set_token_weights(inverse_document_frequency(tokens.values, tokens.offsets, len(inputs.vocabulary)))
        return model, None


class Learnt:
    """What has learnt something already: what comes from a language model, or from a sentence encoder.

    Args:
        model: of this seed; those of others are copies of it, whose head is to be learnt anew.
        layers: says how the layers of one of them are to be trained; None: all alike.
    """

    def __init__(self, model: Classifier, seed: int, layers: Layers | None = None) -> None:
        self._model = model
        self._seed = seed
        self.layers = layers

    def __call__(self, inputs: Inputs, seed: int) -> tuple[Classifier, LayerwiseTraining | None]:
        model = self._model
        if seed != self._seed:
            model = copy.deepcopy(model)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model.fc.reset_parameters()
        return model, None if self.layers is None else self.layers(model)

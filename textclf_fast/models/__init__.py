"""Text classifiers and a language model: plain nn.Modules on textclf_fast.nn."""

from textclf_fast.models.classifier import Classifier
from textclf_fast.models.kinds import make_classifier
from textclf_fast.models.language_model import LanguageModel
from textclf_fast.models.mlp import MLPClassifier, inverse_document_frequency
from textclf_fast.models.multi_input import MultiInputClassifier
from textclf_fast.models.plain import PlainTextClassifier
from textclf_fast.models.text_classifier import TextClassifier

__all__ = [
    "Classifier",
    "LanguageModel",
    "MLPClassifier",
    "MultiInputClassifier",
    "PlainTextClassifier",
    "TextClassifier",
    "inverse_document_frequency",
    "make_classifier",
]

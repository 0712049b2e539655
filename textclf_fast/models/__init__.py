"""Text classifiers: plain nn.Modules on textclf_fast.nn."""

from textclf_fast.models.classifier import Classifier
from textclf_fast.models.kinds import make_classifier
from textclf_fast.models.language_model import LanguageModel
from textclf_fast.models.plain import PlainTextClassifier
from textclf_fast.models.text_classifier import TextClassifier

__all__ = ["Classifier", "LanguageModel", "PlainTextClassifier", "TextClassifier", "make_classifier"]

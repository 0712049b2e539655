"""The training loop, its metrics, and models on disk."""

from __future__ import annotations

from textclf_fast.storage import SavedModel, check_target, load_model, save_model, store_temperature
from textclf_fast.training.distributed import Ranks, joined_ranks
from textclf_fast.training.encoded import EncodedTexts, Layout
from textclf_fast.training.evaluation import evaluate
from textclf_fast.training.loop import fit, train_epochs
from textclf_fast.training.metrics import accuracy, confusion_matrix, macro_f1
from textclf_fast.training.options import TrainingOptions
from textclf_fast.training.results import EpochResult, Evaluation, History, Step
from textclf_fast.training.resume import Checkpoints
from textclf_fast.training.schedules import Schedule

__all__ = [
    "Checkpoints",
    "EncodedTexts",
    "EpochResult",
    "Evaluation",
    "History",
    "Layout",
    "Ranks",
    "SavedModel",
    "Schedule",
    "Step",
    "TrainingOptions",
    "accuracy",
    "check_target",
    "confusion_matrix",
    "evaluate",
    "fit",
    "joined_ranks",
    "load_model",
    "macro_f1",
    "save_model",
    "store_temperature",
    "train_epochs",
]

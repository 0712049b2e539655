"""Models on disk: what is written after training, and all that a predictor needs to read."""

from __future__ import annotations

from textclf_fast.storage.classifiers import SavedModel, check_target, load_model, save_model, store_temperature

__all__ = ["SavedModel", "check_target", "load_model", "save_model", "store_temperature"]

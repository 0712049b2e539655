"""Optimizers for models with large embeddings."""

from textclf_fast.optim.deferred_adam import DeferredAdam

__all__ = ["DeferredAdam"]

"""Drop-ins for nn.LSTM and for nn.Embedding followed by nn.LSTM."""

from textclf_fast.nn.embedding_lstm import FusedEmbeddingLSTM
from textclf_fast.nn.fuse import FuseReport, fuse, unfuse
from textclf_fast.nn.lstm import FusedLSTM

__all__ = ["FuseReport", "FusedEmbeddingLSTM", "FusedLSTM", "fuse", "unfuse"]

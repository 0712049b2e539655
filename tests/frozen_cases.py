"""Models whose inference may go the short way (textclf_fast/nn/frozen.py), and a count of the calls that do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lstm_cases import reference_forward
from torch import Tensor, nn

from textclf_fast import FusedEmbeddingLSTM, ops

V, E, H = 23, 6, 11
T, B = 7, 4
LENGTHS = torch.tensor([3, 7, 1, 5])


class Calls:
    """Counts the runs of the one op, and how many of them refused their arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._op = ops.embedding_lstm_inference
        self.count = self.refused = 0
        monkeypatch.setattr(ops, "embedding_lstm_inference", self._run)

    def _run(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        self.count += 1
        try:
            return self._op(*arguments)
        except RuntimeError:
            self.refused += 1
            raise

    def of(self, call: Callable[[], Any]) -> int:
        """How many runs a call took."""
        before = self.count
        call()
        return self.count - before

    def returned(self, call: Callable[[], Any], count: int) -> Any:
        """What a call returns, which has to take so many runs."""
        before = self.count
        result = call()
        assert self.count - before == count
        return result


def make_model(**options: Any) -> FusedEmbeddingLSTM:
    model = FusedEmbeddingLSTM(V, E, H, **{"dtype": torch.float64, **options})
    model.prepare_inference()
    return model


def make_ids(batch_first: bool = False) -> Tensor:
    return torch.randint(0, V, (B, T) if batch_first else (T, B))


def assert_right(model: FusedEmbeddingLSTM, ids: Tensor, lengths: Tensor | None = None) -> None:
    """The model's results are those of nn.Embedding and nn.LSTM with its weights as they are."""
    forward = reference_forward(plain_lstm(model))
    want, (h_n, c_n) = forward(nn.functional.embedding(ids, model.embedding.weight), None, lengths)
    output, (h, c) = model(ids, lengths)
    for got, expected in ((output, want), (h, h_n), (c, c_n)):
        torch.testing.assert_close(got, expected)


def plain_lstm(model: FusedEmbeddingLSTM) -> nn.LSTM:
    lstm = model.lstm
    plain = nn.LSTM(
        E,
        H,
        bias=lstm.bias,
        batch_first=lstm.batch_first,
        bidirectional=lstm.bidirectional,
        proj_size=lstm.proj_size,
        dtype=lstm._flat_weights[0].dtype,  # type: ignore[union-attr]
    )
    with torch.no_grad():
        for name in plain._flat_weights_names:
            getattr(plain, name).copy_(getattr(lstm, name))
    return plain

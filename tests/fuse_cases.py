"""A model of someone's that fuse changes, and the same one as it was."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from textclf_fast import FusedEmbeddingLSTM
from textclf_fast.nn import paired

VOCAB, DIM, HIDDEN = 23, 5, 8
IDS = (torch.arange(6 * 4) * 7 % VOCAB).view(6, 4)


class Tagger(nn.Module):
    """Someone's model: vectors of each token, by way of ``route`` between the embedding and the LSTM."""

    def __init__(self, route: str = "straight", **options: Any) -> None:
        super().__init__()
        self.route = route
        self.embedding = nn.Embedding(VOCAB, DIM, padding_idx=0, sparse=options.pop("sparse", False))
        self.drop = nn.Dropout(0.3)
        self.lstm = nn.LSTM(DIM, HIDDEN, **options)
        self.out = nn.LazyLinear(3)
        with torch.no_grad():
            self(IDS)

    def forward(self, ids: Tensor) -> Tensor:
        embedded = self.embedding(ids)
        if self.route == "packed":
            packed = pack_padded_sequence(embedded, torch.tensor([3, 6, 1, 6]), enforce_sorted=False)
            output, (h_n, _) = self.lstm(packed)
            output = pad_packed_sequence(output)[0]
        elif self.route == "swapped":  # the caller's ids are (B, T), whatever the LSTM was made for
            output, (h_n, _) = self.lstm(embedded.permute(1, 0, 2))
        elif self.route == "dropout":
            output, (h_n, _) = self.lstm(self.drop(embedded))
        elif self.route == "residual":
            output, (h_n, _) = self.lstm(embedded)
            output = torch.cat([output, embedded], -1)
        else:
            output, (h_n, _) = self.lstm(embedded)
        return self.out(output.relu()) + h_n.mean()


ROUTES = ("straight", "packed", "swapped", "dropout", "residual")


@pytest.fixture
def from_ids(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """The ids of each call that an embedding and an LSTM ran as one."""
    seen: list[Tensor] = []
    forward = FusedEmbeddingLSTM.forward

    def spy(self: FusedEmbeddingLSTM, ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(ids)
        return forward(self, ids, *args, **kwargs)

    monkeypatch.setattr(FusedEmbeddingLSTM, "forward", spy)
    yield seen
    gc.collect()  # of failed calls' tracebacks
    assert not paired._origins, "a remembered tensor outlives its use"


def two(*args: Any, **options: Any) -> tuple[Tagger, Tagger]:
    """A model, and the same to be fused."""
    plain = Tagger(*args, **options)
    return plain, copy.deepcopy(plain)


def gradients(model: nn.Module, *args: Any) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(3)  # dropout
    model(*args).square().sum().backward()
    return {name: p.grad.to_dense() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(fused: nn.Module, plain: nn.Module, *args: Any) -> None:
    torch.testing.assert_close(gradients(fused, *args), gradients(plain, *args))

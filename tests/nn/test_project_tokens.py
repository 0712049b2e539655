"""How tokens are projected on a GPU where no table is kept; all of it is PyTorch's, and so runs on a CPU, too."""

from __future__ import annotations

import pytest
import torch

from textclf_fast import FusedLSTM
from textclf_fast.nn.on_cuda import project_tokens
from textclf_fast.nn.projection import project


@pytest.mark.parametrize("vocabulary", [5, 50])  # fewer than positions, and more
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_rows_are_those_of_the_tokens_and_of_no_others(vocabulary: int, max_norm: float | None) -> None:
    embedding, lstm = torch.nn.Embedding(vocabulary, 3, max_norm=max_norm), FusedLSTM(3, 4, bidirectional=True)
    ids = torch.tensor([4, 0, -1, 2, vocabulary, 2, 0, 1, 3])
    good = (ids >= 0) & (ids < vocabulary)
    with torch.no_grad():
        expected = project(embedding(ids[good]), lstm, 0)
        gates, index = project_tokens(embedding, lstm, ids)
    assert index is not None
    torch.testing.assert_close(gates[:, index[good]], expected)
    assert not ((index[~good] >= 0) & (index[~good] < gates.size(1))).any()


def test_training_projects_each_position() -> None:
    embedding, lstm = torch.nn.Embedding(5, 3), FusedLSTM(3, 4)
    ids = torch.tensor([4, 0, 4, 2, 2, 1, 3])
    gates, index = project_tokens(embedding, lstm, ids)
    assert index is None
    assert gates.shape == (1, 7, 16)
    gates.sum().backward()
    assert embedding.weight.grad is not None

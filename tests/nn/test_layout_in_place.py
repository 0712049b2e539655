"""The layout that is made where the lengths are, without a look at them, against the one made by the host."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, ops
from textclf_fast.nn.layout import layout_in_place, to_packed, to_padded

LENGTHS = [[3, 7, 1, 7, 5], [7, 7], [1], [2, 2, 1]]
STEPS = 7


def _strides(rows: int, batch_first: bool) -> tuple[int, int, int]:
    return (STEPS, 1, STEPS) if batch_first else (STEPS, rows, 1)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_equals_the_hosts(lengths: list[int], batch_first: bool) -> None:
    strides = _strides(len(lengths), batch_first)
    positions, batch_sizes, order, inverse = ops.packed_layout(torch.tensor(lengths), *strides)
    layout = layout_in_place(torch.tensor(lengths), *strides)
    count = sum(lengths)
    assert layout.positions is not None
    assert layout.positions.numel() == STEPS * len(lengths)
    assert torch.equal(layout.positions[:count], positions)
    assert (layout.positions[count:] == -1).all()
    assert torch.equal(layout.batch_sizes[: max(lengths)], batch_sizes)
    assert layout.batch_sizes.numel() == STEPS
    assert not layout.batch_sizes[max(lengths) :].any()
    assert torch.equal(layout.sorted_indices, order)
    assert torch.equal(layout.unsorted_indices, inverse)


@pytest.mark.parametrize("batch_first", [False, True])
def test_padded_and_back(batch_first: bool) -> None:
    lengths, rows = torch.tensor(LENGTHS[0]), len(LENGTHS[0])
    layout = layout_in_place(lengths, *_strides(rows, batch_first))
    shape = (rows, STEPS) if batch_first else (STEPS, rows)
    ids = torch.arange(1, rows * STEPS + 1).view(shape)
    packed = to_packed(ids, layout, batch_first)
    assert (packed[lengths.sum() :] == -1).all()
    values = packed.double().unsqueeze(1)
    values[lengths.sum() :] = torch.nan  # which no kernel writes
    padded = to_padded(values, layout, STEPS, rows, batch_first).squeeze(2)
    alive = torch.arange(STEPS) < lengths.unsqueeze(1)  # (B, T)
    assert torch.equal(padded, ids.double() * (alive if batch_first else alive.T))


def test_rows_whose_length_is_none_have_no_positions() -> None:
    layout = layout_in_place(torch.tensor([3, 0, 8, -5, 2]), *_strides(5, False))
    assert layout.batch_sizes.tolist() == [5, 3, 2, 1, 1, 1, 1]
    assert layout.positions is not None
    in_row = [int(p) % 5 for p in layout.positions if p >= 0]
    assert sorted(in_row) == [0, 0, 0, 4, 4]  # of rows 1, 2 and 3 none


def _kernel_of_a_gpu(
    gates: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    panels: Tensor | None = None,
    need_output: bool = True,
    w_hr: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """ops.lstm as on a GPU: sizes may end in zeros, there may be more positions, indices that are none give NaN.

    (What csrc/cuda/ does with these is tested on the emulator.)
    """
    count = int(batch_sizes.sum())
    index = torch.arange(gates.size(1)) if index is None else index
    own = index[:count]
    with_nan = torch.cat([gates, torch.full_like(gates[:, :1], torch.nan)], 1)
    own = torch.where((own >= 0) & (own < gates.size(1)), own, gates.size(1))
    output, h_n, c_n = ops.lstm_reference(with_nan, own, batch_sizes[batch_sizes > 0], w_hh, h0, c0)
    return torch.cat([output, output.new_full((index.size(0) - count, output.size(1)), torch.nan)]), h_n, c_n


@pytest.fixture
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules lay lengths out in place, and their kernel takes that, as they do on a GPU."""

    def in_place(lengths: Tensor, steps: int, rows: int, batch_first: bool, device: object = None) -> object:
        return layout_in_place(lengths, steps, *((1, steps) if batch_first else (rows, 1)))

    for room in ("lstm", "embedding_lstm"):
        monkeypatch.setattr(f"textclf_fast.nn.{room}.padded_layout", in_place)
    monkeypatch.setattr(ops, "lstm", _kernel_of_a_gpu)
    monkeypatch.setattr("textclf_fast.nn.stack.kernels_project", lambda lstm, rows: False)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("tokens", [False, True])
def test_modules_compute_the_same(batch_first: bool, tokens: bool, request: pytest.FixtureRequest) -> None:
    lengths, rows = torch.tensor(LENGTHS[0]), len(LENGTHS[0])
    options = {"num_layers": 2, "bidirectional": True, "batch_first": batch_first, "dtype": torch.float64}
    shape = (rows, STEPS) if batch_first else (STEPS, rows)
    module: torch.nn.Module
    if tokens:
        module, batch = FusedEmbeddingLSTM(9, 4, 6, **options), torch.randint(9, shape)
        module.prepare_inference()
    else:
        module, batch = FusedLSTM(4, 6, **options), torch.randn(*shape, 4, dtype=torch.float64)
    hx = (torch.randn(4, rows, 6, dtype=torch.float64), torch.randn(4, rows, 6, dtype=torch.float64))
    with torch.no_grad():
        expected = module(batch, lengths=lengths, hx=hx)
        request.getfixturevalue("_as_on_a_gpu")
        results = module(batch, lengths=lengths, hx=hx)
        bad = lengths.clone()
        bad[1] = STEPS + 1
        output, (h_n, _) = module(batch, lengths=bad, hx=hx)
    for ours, theirs in zip((results[0], *results[1]), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert h_n[:, 1].isnan().all()
    others = [0, 2, 3, 4]
    torch.testing.assert_close(h_n[:, others], expected[1][0][:, others])
    assert output.select(0 if batch_first else 1, 1).isnan().any()

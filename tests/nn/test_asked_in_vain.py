"""What nn.LSTM's users have missed and FusedLSTM has without any option."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM


@pytest.mark.compat("lengths", "rows of different lengths, unsorted, without packing", nn_lstm="only as PackedSequence")
def test_lengths_without_packing_or_sorting() -> None:
    plain = nn.LSTM(4, 6, num_layers=2, bidirectional=True)
    fused = FusedLSTM.from_lstm(plain)
    x, lengths = torch.randn(7, 5, 4), [3, 7, 1, 7, 2]
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    want, states = plain(packed)
    output, found = fused(x, lengths=lengths)
    torch.testing.assert_close(output, pad_packed_sequence(want)[0])
    torch.testing.assert_close(found, states)


@pytest.mark.compat(
    "weights",
    "no flat buffer of weights: they may lie, and be changed, anyhow",
    nn_lstm="a RuntimeWarning and a copy a call, on CUDA",
)
def test_weights_anyhow_bring_no_warning() -> None:
    plain, fused = nn.LSTM(4, 6, num_layers=2), FusedLSTM(4, 6, num_layers=2)
    fused.load_state_dict(plain.state_dict())
    x = torch.randn(7, 5, 4)
    want = plain(x)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, weight in plain.named_parameters():
            gaps = torch.stack([weight.detach(), torch.full_like(weight, 77)], -1)[..., 0]
            assert not gaps.is_contiguous()
            setattr(fused, name, nn.Parameter(gaps))
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                torch.testing.assert_close(fused(x)[0], want)
        fused(x)[0].sum().backward()
        fused.weight_hh_l1 = nn.Parameter(plain.weight_hh_l1.detach().clone())
        fused.weight_ih_l0.data = plain.weight_ih_l0.detach().clone()
        with torch.no_grad():
            torch.testing.assert_close(fused(x)[0], want)
        fused.flatten_parameters()
    plain(x)[0].sum().backward()
    torch.testing.assert_close(fused.bias_hh_l0.grad, plain.bias_hh_l0.grad)


@pytest.mark.compat("sizes", "more than 65,535 steps", nn_lstm="fails on CUDA")
def test_very_long_sequences() -> None:
    """Carried on through calls of a part each; the reverse direction on the sequence turned round."""
    steps = 65_536 + 7
    module = FusedEmbeddingLSTM(11, 2, 3, bidirectional=True)
    ids = torch.randint(0, 11, (steps, 2))
    output, _ = module(ids)
    output.square().mean().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())
    with torch.no_grad():
        inferred, (h_n, _) = module(ids)
        torch.testing.assert_close(inferred, output)
        assert torch.equal(h_n[0], inferred[-1, :, :3])
        forward = FusedLSTM(2, 3)
        forward.load_state_dict({k: v for k, v in module.lstm.state_dict().items() if not k.endswith("_reverse")})
        states = None
        for part in module.embedding(ids).split(30_000):
            _, states = forward(part, states)
        torch.testing.assert_close(states[0][0], h_n[0])
        ragged, _ = module(ids, [steps, 5])
        torch.testing.assert_close(ragged[:, 0], output[:, 0])
        assert (ragged[5:, 1] == 0).all()


@pytest.mark.compat(
    "determinism", "the same bits run after run, with dropout by the seed", nn_lstm="not always, on CUDA"
)
def test_the_same_bits_250_times() -> None:
    module = FusedEmbeddingLSTM(50, 9, 33, num_layers=2, bidirectional=True, dropout=0.4)
    ids = torch.randint(0, 50, (12, 7))
    lengths = [3, 12, 1, 12, 7, 2, 9]
    seen = set()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(250):
            module.zero_grad()
            torch.manual_seed(4)
            output, (_, c_n) = module(ids, lengths)
            (output.square().sum() + c_n.sum()).backward()
            tensors = [output.detach(), c_n.detach(), *(p.grad for p in module.parameters())]
            seen.add(hash(b"".join(t.numpy().tobytes() for t in tensors)))
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 1

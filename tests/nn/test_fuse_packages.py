"""fuse on models of other packages, small and with random weights; docs/fuse.md lists what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from textclf_fast import FusedLSTM, fuse, unfuse

Built = tuple[nn.Module, Callable[[], Tensor]]
_PAIR = "in inference, where the one's output is the other's input"
_T, _B = 7, 4


def _encodec() -> Built:
    """transformers: a convolutional audio codec with an LSTM of two layers in its encoder and its decoder."""
    module = pytest.importorskip("transformers.models.encodec.modeling_encodec")
    config = module.EncodecConfig(
        target_bandwidths=[1.5],
        sampling_rate=64,
        num_filters=2,
        hidden_size=8,
        codebook_size=16,
        upsampling_ratios=[2, 2],
    )
    model = module.EncodecModel(config)
    audio = torch.randn(2, 1, 64)
    return model, lambda: model.decoder(model.encoder(audio))


def _stanza_char_lm() -> Built:
    """stanza: a character language model, embedding -> dropout -> packing -> LSTM."""
    module = pytest.importorskip("stanza.models.common.char_model")
    args = {
        "char_emb_dim": 5,
        "char_hidden_dim": 9,
        "char_num_layers": 1,
        "char_dropout": 0.2,
        "char_rec_dropout": 0,
    }
    model = module.CharacterLanguageModel(args, {"char": list(range(20))})
    chars = torch.randint(20, (_B, _T))
    return model, lambda: model(chars, [7, 5, 5, 2])[2]


def _stanza_tokenizer() -> Built:
    """stanza: two bidirectional LSTMs, the first on embeddings beside other features."""
    module = pytest.importorskip("stanza.models.tokenization.model")
    args = {
        "feat_dim": 3,
        "rnn_layers": 2,
        "conv_res": None,
        "use_mwt": False,
        "hierarchical": True,
        "hier_invtemp": 0.5,
        "tok_noise": 0.1,
    }
    model = module.Tokenizer(args, 20, 5, 8, 0.2, 0.1)
    units, features = torch.randint(1, 20, (_B, _T)), torch.randn(_B, _T, 3)
    return model, lambda: model(units, features, [7, 5, 5, 2])


def _fastai_awd_lstm() -> Built:
    """fastai: AWD-LSTM, whose recurrent weights are replaced by others before every call."""
    module = pytest.importorskip("fastai.text.models.awdlstm")
    model = module.AWD_LSTM(20, 5, 9, 2)
    ids = torch.randint(20, (_B, _T))

    def call() -> Tensor:
        model.reset()
        return model(ids)

    return model, call


def _jumping_knowledge() -> Built:
    """torch_geometric: an LSTM over the layers of a graph network."""
    module = pytest.importorskip("torch_geometric.nn")
    model = module.JumpingKnowledge("lstm", channels=6, num_layers=3)
    layers = [torch.randn(10, 6) for _ in range(3)]
    return model, lambda: model(layers)


def _torchrl_lstm() -> Built:
    """torchrl: an LSTM for policies, which starts anew where an episode does."""
    modules = pytest.importorskip("torchrl.modules")
    data = pytest.importorskip("tensordict")
    model = modules.LSTMModule(
        input_size=5, hidden_size=8, num_layers=2, in_keys=["seen", "h", "c"], out_keys=["out", "h", "c"]
    )
    seen, starts = torch.randn(_B, _T, 5), torch.zeros(_B, _T, 1, dtype=torch.bool)
    starts[1, 3] = starts[2, 1] = True

    def call() -> Tensor:
        with modules.set_recurrent_mode(True):
            return model(data.TensorDict({"seen": seen, "is_init": starts}, [_B, _T]))["out"]

    return model, call


_EXPECTED = {
    _encodec: ["fused  encoder.layers.7.lstm", "fused  decoder.layers.1.lstm"],
    _stanza_char_lm: ["fused  charlstm.lstm", f"pair   char_emb -> charlstm.lstm: {_PAIR}"],
    _stanza_tokenizer: ["fused  rnn", "fused  rnn2"],
    _fastai_awd_lstm: [
        "fused  rnns.0.module",
        "fused  rnns.1.module",
        f"pair   encoder = encoder_dp.emb -> rnns.0.module: {_PAIR}",
    ],
    _jumping_knowledge: ["fused  lstm"],
    _torchrl_lstm: ["fused  lstm"],
}


def _run(model: nn.Module, call: Callable[[], Tensor]) -> dict[str, Any]:
    """Gradients in training, then results in inference."""
    model.train()
    model.zero_grad()
    torch.manual_seed(2)  # dropout
    result = call()
    results = result if isinstance(result, tuple) else (result,)
    sum(r.square().sum() for r in results).backward()
    found: dict[str, Any] = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.eval()
    with torch.no_grad():
        found["inference"] = [call() for _ in range(3)]
    return found


@pytest.mark.parametrize("build", _EXPECTED, ids=lambda build: build.__name__[1:])
@pytest.mark.compat(
    "fuse", "models of transformers, stanza, fastai, torch_geometric, torchrl: same results and gradients"
)
def test_results_and_gradients_stay(build: Callable[[], Built]) -> None:
    model, call = build()
    keys, classes = model.state_dict().keys(), [type(module) for module in model.modules()]
    want = _run(model, call)
    assert str(fuse(model)).splitlines() == _EXPECTED[build]
    assert any(isinstance(module, FusedLSTM) for module in model.modules())
    torch.testing.assert_close(_run(model, call), want, rtol=1e-4, atol=1e-5)
    assert model.state_dict().keys() == keys
    unfuse(model)
    assert [type(module) for module in model.modules()] == classes
    torch.testing.assert_close(_run(model, call), want)

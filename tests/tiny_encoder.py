"""A sentence encoder of 16 numbers and random weights, which knows some words; `encoder` is a fixture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

WORDS = ("a", "the", "film", "good", "bad", "fine", "awful", "is", "it", "and")


def write_encoder(directory: Path, safetensors: bool = True) -> None:
    """Writes it as sentence-transformers writes one."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    directory.mkdir()
    vocabulary = {token: place for place, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS))}
    (directory / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary))
    BertTokenizerFast(vocab=vocabulary).save_pretrained(directory)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=64,
        )
        BertModel(config).eval().save_pretrained(directory)
    transformer = Transformer(str(directory))
    SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu").save(str(directory))
    if not safetensors:
        from safetensors.torch import load_file

        torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
        (directory / "model.safetensors").unlink()


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentence_transformers")
    directory = tmp_path_factory.mktemp("encoders") / "tiny"
    write_encoder(directory)
    return directory

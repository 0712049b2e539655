"""Texts that a language model generates: drawn as it says, and kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from textclf_fast.models import LanguageModel
from textclf_fast.text import UNK_ID, CharacterTokenizer, DataError, Vocabulary, WordTokenizer, same_text
from textclf_fast.training.generation import forward_half, generate_texts, load_texts, save_texts
from textclf_fast.training.language_model_files import SavedLanguageModel

VOCABULARY = Vocabulary(["<pad>", "<unk>", "a", "b", "c"])


def saved(model: LanguageModel, vocabulary: Vocabulary = VOCABULARY) -> SavedLanguageModel:
    return SavedLanguageModel(model.eval(), vocabulary, CharacterTokenizer(), {})


@torch.no_grad()
def without_memory(probabilities: list[float]) -> LanguageModel:
    """A model that gives the words the same probabilities wherever it is."""
    model = LanguageModel(len(probabilities), 4, 4)
    model.encoder.embedding.weight.zero_()
    model.bias.copy_(torch.tensor(probabilities).log())
    return model


def test_words_have_the_probabilities_that_the_model_gives_them() -> None:
    """Two letters and the end: 1/2 a, 1/6 b, 1/3 the end, once <unk>, which is no word, is left out."""
    model = saved(without_memory([0.2, 0.4, 0.3, 0.1, 0.0]))
    texts = generate_texts(model, 20_000, 40)
    assert {"a", "b", "aa", "ab", "ba", "bb", "aaa"} <= set(texts)
    assert all(text and set(text) <= {"a", "b"} for text in texts)
    assert len(set(texts)) == len(texts)
    # All that come, the same ones among them: lengths tell the end's probability, and letters theirs.
    counts = Counter(text for seed in range(3_000) for text in generate_texts(model, 1, 40, seed))
    letters = Counter("".join(counts.elements()))
    number = letters.total()
    assert counts.total() / 3_000 == pytest.approx(2 / 3, abs=0.05)  # others are empty
    assert number / 3_000 == pytest.approx(2, abs=0.25)
    assert letters["a"] / number == pytest.approx(3 / 4, abs=0.03)


def test_the_model_is_followed_from_word_to_word() -> None:
    """One that has learnt a single text by heart writes it; a row's next text begins as the first did."""
    torch.manual_seed(0)
    model = LanguageModel(5, 8, 16, bidirectional=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    stream = torch.tensor([0, 2, 3, 4, 2] * 8 + [0]).unsqueeze(1)
    for _ in range(150):
        output, _ = model(stream[:-1])
        loss = model.loss(output, stream[:-1], stream[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert generate_texts(saved(model), 200, 10)[0] == "abca"
    assert len(generate_texts(saved(model), 200, 10)) < 20


def test_long_ones_are_cut() -> None:
    texts = generate_texts(saved(without_memory([1e-9, 0.0, 1.0, 1.0, 1.0])), 100, 7)
    assert {len(text) for text in texts} == {7}
    assert len(texts) > 90


@pytest.mark.parametrize("count", [0, 1, 63, 64, 130])
def test_as_many_as_are_asked_for(count: int) -> None:
    told: list[int] = []
    model = saved(without_memory([1.0, 0.0, 9.0, 9.0, 9.0]))
    texts = generate_texts(model, count, 50, on_progress=told.append)
    assert told == list(range(1, count + 1))
    assert count * 0.5 <= len(texts) <= count


def test_the_seed_decides() -> None:
    torch.manual_seed(1)
    model = saved(LanguageModel(5, 4, 4))
    state = torch.get_rng_state()
    one, same, other = (generate_texts(model, 20, 9, seed) for seed in (3, 3, 4))
    assert one == same != other
    assert torch.get_rng_state().equal(state)


def test_unknown_words_are_none() -> None:
    """Even where the model would say nothing else."""
    texts = generate_texts(saved(without_memory([1e-3, 1.0, 1e-3, 0.0, 0.0])), 50, 9)
    assert texts
    assert not any(VOCABULARY.tokens[UNK_ID] in text for text in texts)


def test_words_are_joined() -> None:
    vocabulary = Vocabulary(["<pad>", "<unk>", "so", "!"])
    model = SavedLanguageModel(without_memory([1e-9, 0.0, 1.0, 1.0]).eval(), vocabulary, WordTokenizer(), {})
    texts = generate_texts(model, 50, 2)
    assert {"so so", "so!", "! so", "! !"} == set(texts)


def test_white_space_is_no_text() -> None:
    """And texts that differ in it alone are one."""
    vocabulary = Vocabulary(["<pad>", "<unk>", "a", " "])
    texts = generate_texts(saved(without_memory([1.0, 0.0, 1.0, 2.0]), vocabulary), 500, 6)
    assert {"a", "a a"} <= set(texts)
    assert all(text and text == " ".join(text.split()) for text in texts)
    assert len({same_text(text) for text in texts}) == len(texts)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_forward_half(bidirectional: bool) -> None:
    torch.manual_seed(2)
    model = LanguageModel(9, 6, 8, bidirectional=bidirectional, dropout=0.5).eval()
    half = forward_half(model)
    ids = torch.randint(9, (7, 3))
    torch.testing.assert_close(half.scores(half(ids)[0])[0], model.scores(model(ids)[0])[0])
    assert len(half.back) == 1


@pytest.mark.parametrize(
    ("count", "longest", "message"),
    [(-1, 5, "count: expected at least 0, got -1"), (1, 0, "longest: expected at least 1, got 0")],
)
def test_bad_numbers(count: int, longest: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate_texts(saved(without_memory([1.0] * 5)), count, longest)


def test_kept(tmp_path: Path) -> None:
    path = tmp_path / "texts"
    texts = ["a", "é \ud800 \U0001f600", "x\ny"]
    save_texts(path, texts, {"seed": 3})
    assert load_texts(path, {"seed": 3}) == texts
    save_texts(path, [], {"seed": 4})
    assert load_texts(path, {"seed": 4}) == []
    with pytest.raises(DataError, match="is of a training with seed 4, not 3"):
        load_texts(path, {"seed": 3})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cannot be read"):
        load_texts(path, {"seed": 4})

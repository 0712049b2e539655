"""Texts without labels: what teachers say of them, and how that joins what there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from textclf_fast.text import DataError, RaggedTokens
from textclf_fast.training import EncodedTexts, TrainingOptions, evaluate, fit
from textclf_fast.training.self_training import Guesses, guess, read_guesses, with_guesses, write_guesses


class Teacher(nn.Module):
    """Gives each text the logits of its first token."""

    def __init__(self, logits: list[list[float]], dropout: float = 0.0) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(logits))
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: PackedSequence) -> Tensor:
        padded, _ = pad_packed_sequence(ids)
        return self.dropout(self.table[padded[0]])


def _tokens(*rows: list[int]) -> RaggedTokens:
    return RaggedTokens.from_lists(rows)


def test_a_guess_is_of_the_mean_of_probabilities() -> None:
    """Not of the logits' mean, nor of the votes."""
    sure, unsure = [0.0, 6.0], [0.5, 0.0]
    teachers = [Teacher([unsure, [2.0, 0.0]]), Teacher([unsure, [1.0, 0.0]]), Teacher([sure, [0.0, 0.5]])]
    tokens = _tokens([0, 1, 1], [1], [0], [1, 0, 0, 0, 0])
    guesses = guess(iter(teachers), tokens)
    expected = torch.stack([teacher.table.detach().double().softmax(1) for teacher in teachers]).mean(0)
    assert guesses.labels.tolist() == [1, 0, 1, 0]
    torch.testing.assert_close(guesses.confidence, expected.max(1).values[[0, 1, 0, 1]])
    assert len(guesses) == 4
    assert guesses.tokens is tokens


def test_teachers_are_asked_in_eval_mode_and_left_as_they_were() -> None:
    teachers = [Teacher([[1.0, 0.0]], dropout=0.9).train(), Teacher([[1.0, 0.0]], dropout=0.9).eval()]
    guesses = guess(teachers, _tokens(*[[0]] * 50))
    assert guesses.labels.tolist() == [0] * 50
    assert guesses.confidence.unique().numel() == 1
    assert [teacher.training for teacher in teachers] == [True, False]
    assert not guesses.confidence.requires_grad


def test_one_teacher_at_a_time() -> None:
    """Each has answered before the next one is made."""
    events: list[str] = []

    def teachers() -> Iterator[Teacher]:
        for _ in range(2):
            events.append("made")
            teacher = Teacher([[1.0, 0.0]])
            teacher.register_forward_hook(lambda *unused: events.append("asked"))
            yield teacher

    guess(teachers(), _tokens([0]))
    assert events == ["made", "asked", "made", "asked"]


def test_nobody_to_ask_and_nothing_to_ask_about() -> None:
    with pytest.raises(ValueError, match="teachers: expected at least one, got none"):
        guess([], _tokens([0]))
    with pytest.raises(ValueError, match="tokens: expected at least one text, got none"):
        guess([Teacher([[0.0]])], _tokens())


def test_guesses_join_the_labels() -> None:
    labelled = EncodedTexts(_tokens([1, 2], [3]), torch.tensor([1, 0]))
    guesses = Guesses(_tokens([4], [5, 6, 7]), torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64))
    both = with_guesses(labelled, guesses)
    assert [row.tolist() for row in both.tokens] == [[1, 2], [3], [4], [5, 6, 7]]
    assert both.labels.tolist() == [1, 0, 0, 0]
    assert both.weights is not None
    assert both.weights.tolist() == [1, 1, 0.75, 0.5]
    assert both.probabilities is None
    weighted = EncodedTexts(labelled.tokens, labelled.labels, torch.tensor([3.0, 2.0], dtype=torch.float64))
    weights = with_guesses(weighted, guesses).weights
    assert weights is not None
    assert weights.tolist() == [3, 2, 0.75, 0.5]


def test_soft_guesses_join_the_labels() -> None:
    labelled = EncodedTexts(_tokens([1, 2], [3]), torch.tensor([1, 0]))
    guesses = Guesses(_tokens([4], [5]), torch.tensor([[0.75, 0.25], [0.25, 0.75]], dtype=torch.float64))
    both = with_guesses(labelled, guesses, soft=True)
    assert both.labels.tolist() == [1, 0, 0, 1]
    assert both.probabilities is not None
    assert both.probabilities.tolist() == [[0, 1], [1, 0], [0.75, 0.25], [0.25, 0.75]]
    assert both.weights is None
    again = with_guesses(both, Guesses(_tokens([6]), torch.tensor([[0.0, 1.0]], dtype=torch.float64)), soft=True)
    assert again.probabilities is not None
    assert torch.equal(again.probabilities[:4], both.probabilities)
    weighted = EncodedTexts(labelled.tokens, labelled.labels, torch.tensor([3.0, 2.0], dtype=torch.float64))
    weights = with_guesses(weighted, guesses, soft=True).weights
    assert weights is not None
    assert weights.tolist() == [3, 2, 1, 1]


def test_guesses_are_kept(tmp_path: Path) -> None:
    guesses = guess([Teacher([[0.0, 1.0], [2.0, 0.0]])], _tokens([0, 1], [1]))
    path, who = tmp_path / "guesses", {"teachers": 1}
    write_guesses(path, guesses, who)
    assert torch.equal(read_guesses(path, guesses.tokens, who).probabilities, guesses.probabilities)
    with pytest.raises(DataError, match="guesses: is of a training on other texts"):
        read_guesses(path, _tokens([0, 1], [2]), who)
    with pytest.raises(DataError, match=r"is of a training with teachers \{'teachers': 1\}, not \{'teachers': 2"):
        read_guesses(path, guesses.tokens, {"teachers": 2})
    path.write_bytes(b"nothing of that")
    with pytest.raises(DataError, match="guesses: cannot be read"):
        read_guesses(path, guesses.tokens, who)


class Bag(nn.Module):
    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(vocab_size, 2, mode="mean")
        nn.init.zeros_(self.embedding.weight)

    def forward(self, ids: PackedSequence) -> Tensor:
        padded, lengths = pad_packed_sequence(ids, batch_first=True, padding_value=0)
        return self.embedding(torch.cat([row[:n] for row, n in zip(padded, lengths, strict=True)]), _starts(lengths))


def _starts(lengths: Tensor) -> Tensor:
    return lengths.cumsum(0) - lengths


def test_it_learns_words_that_no_labelled_text_has() -> None:
    """Each text has a word of its class that the labelled ones have, or one of its class that stands beside those."""
    generator = np.random.default_rng(0)
    known, new = ([1, 2], [3, 4]), ([5, 6], [7, 8])  # by class
    classes = generator.integers(0, 2, 200)
    rest = _tokens(*[[generator.choice(known[c]), generator.choice(new[c])] for c in classes])
    labelled = EncodedTexts(_tokens([1], [2], [3], [4]), torch.tensor([0, 0, 1, 1]))
    tested = EncodedTexts(_tokens([5], [6], [7], [8]), torch.tensor([0, 0, 1, 1]))
    options = TrainingOptions(epochs=40, batch_size=4, learning_rate=0.05, keep="last", fused_adam=False)
    teacher, learner = Bag(9), Bag(9)
    fit(teacher, labelled, tested, options)
    assert evaluate(teacher, tested).accuracy == 0.5  # these words say nothing to it
    guesses = guess([teacher], rest)
    assert (guesses.labels.numpy() == classes).all()
    fit(learner, with_guesses(labelled, guesses), tested, options)
    assert evaluate(learner, tested).accuracy == 1.0

"""On real sentences: ours and nn.LSTM, from the same weights, have the same losses."""

from __future__ import annotations

import pytest
import torch

from textclf_fast import TextClassifier
from textclf_fast.models import PlainTextClassifier
from textclf_fast.text import DataError, Vocabulary, WordTokenizer, load_dataset
from textclf_fast.training import EncodedTexts, TrainingOptions, train_epochs

STEPS = 50


@pytest.fixture(scope="module")
def reviews() -> EncodedTexts:
    try:
        data = load_dataset("rt", "train")
    except DataError as error:
        if "could not be downloaded" not in str(error):
            raise
        pytest.skip(str(error))
    tokenizer = WordTokenizer()
    vocabulary = Vocabulary.build(map(tokenizer, data.texts), 10_000)
    return EncodedTexts.from_texts(data.select(range(32 * STEPS)), data.classes, vocabulary, tokenizer)


@pytest.mark.network
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_loss_curves_agree_over_the_first_steps(reviews: EncodedTexts, layout: str) -> None:
    curves = []
    torch.manual_seed(0)
    plain = PlainTextClassifier(10_000, 100, 128, 2, layout="packed")
    ours = TextClassifier(10_000, 100, 128, 2)
    ours.load_state_dict(plain.state_dict())
    for model, form in ((plain, "padded"), (ours, layout)):
        options = TrainingOptions(epochs=1, layout=form, bucket=False, fused_adam=False)  # type: ignore[arg-type]
        (epoch,) = train_epochs(model, reviews, reviews, options)
        curves.append([step.loss for step in epoch.steps])
    assert len(curves[0]) == STEPS
    torch.testing.assert_close(torch.tensor(curves[1]), torch.tensor(curves[0]), rtol=1e-4, atol=1e-4)

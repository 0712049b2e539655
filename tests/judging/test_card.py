from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from textclf_fast.judging import Judgement
from textclf_fast.judging.card import model_card
from textclf_fast.judging.evaluations import add_evaluation, evaluation_record, read_evaluations
from textclf_fast.judging.source import describe_source, fingerprint
from textclf_fast.text import DataError, LabelledTexts, WordTokenizer, split
from textclf_fast.training import SavedModel

LABELS = ["good", "a|<b>\nc"]


def record(
    data: str = "reviews.csv",
    part: Any = "held-out",
    seed: int = 0,
    sha256: str = "12ab",
    share: float | None = 0.3,
    group: str | None = None,
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    logits, truth = torch.randn(20, 2, generator=generator), torch.randint(2, (20,), generator=generator)
    return evaluation_record(Judgement.of(LABELS, logits, truth), data, part, sha256, share, group)


@pytest.fixture
def data() -> LabelledTexts:
    texts = [f"text {number}" for number in range(50)]
    return LabelledTexts(texts, [LABELS[number % 2] for number in range(50)], [str(n // 5) for n in range(50)])


@pytest.fixture
def saved(toy: Any, data: LabelledTexts) -> SavedModel:
    source = describe_source(
        "reviews.csv", data, *split(data, 0.3), text="body", label="stars", group="shop", share=0.3
    )
    epochs = [{"held_out": {"accuracy": 0.5}, "seconds": 1.0}, {"held_out": {"accuracy": 0.75}, "seconds": 2.5}]
    extra = {
        "source": {**source, "commit": "0123abc"},
        "machine": {"CPU": "a fast one"},
        "options": {"keep": "best", "batch_size": 7, "schedule": {"kind": "constant"}},
        "epochs": epochs,
    }
    return SavedModel(toy.model(), toy.vocabulary, WordTokenizer(), LABELS, extra)


def test_says_what_is_known(saved: SavedModel, data: LabelledTexts) -> None:
    found = record()
    card = model_card("sentiment", saved, [{**found, "pictures": ["confusion.png"]}])
    train, held_out = split(data, 0.3)
    for line in (
        "# sentiment",
        "| file or data set | reviews.csv |",
        f"| sha256 of texts and labels | `{fingerprint(data)}` |",
        "| columns | text `body`, label `stars`, group `shop` |",
        f"| good | {train.labels.count('good')} | {held_out.labels.count('good')} |",
        f"| parameters | {sum(p.numel() for p in saved.model.parameters()):,} |",
        "| tokenizer | word |",
        "2 epochs, 3.5 s of training; the highest accuracy on the held-out texts after epoch 2.",
        "| batch size | 7 |",
        "| schedule | kind constant |",
        "| CPU | a fast one |",
        "| commit of the working directory | `0123abc` |",
        "![confusion](confusion.png)",
    ):
        assert f"{line}\n" in card
    assert f"{len(train)} to train on, {len(held_out)} held out (asked for: 0.3)" in card
    assert f"| reviews.csv | held-out, 0.3 | 20 | {found['accuracy']:.4f} | {found['macro_f1']:.4f} |" in card
    score = found["classes"][0]
    assert (
        f"| good | {score['precision']:.4f} | {score['recall']:.4f} | {score['f1']:.4f} | {score['support']} |" in card
    )
    assert "The epoch was chosen on the held-out texts" in card


def test_names_cannot_break_a_table(saved: SavedModel) -> None:
    card = model_card("sentiment", saved, [record()])
    assert r"| a\|&lt;b> c | " in card
    assert "<b>" not in card


def test_header_is_one_that_can_be_read(saved: SavedModel) -> None:
    """YAML; each value is JSON, on its line."""
    header = model_card('a "name": with signs', saved, [record(), record("other.csv", "all", share=None)]).split(
        "---\n"
    )[1]
    entries = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in header.splitlines())}
    assert entries["pipeline_tag"] == "text-classification"
    (model,) = entries["model-index"]
    assert model["name"] == 'a "name": with signs'
    assert [result["dataset"]["name"] for result in model["results"]] == [
        "reviews.csv (held-out, 0.3)",
        "other.csv (all)",
    ]
    assert model["results"][0]["metrics"][0] == {"type": "accuracy", "value": round(record()["accuracy"], 4)}


def test_what_is_not_known_is_left_out(toy: Any) -> None:
    """As of a model that was saved by a program of one's own."""
    card = model_card("mine", SavedModel(toy.model(), toy.vocabulary, WordTokenizer(), toy.labels, {}), [])
    assert "model-index" not in card
    assert [line for line in card.splitlines() if line.startswith("#")] == ["# mine", "## Model", "## Limits"]


def test_limits_name_classes_of_few_texts(saved: SavedModel) -> None:
    saved.extra["source"].update(train={"good": 9, "bad": 10}, held_out={"good": 3, "rare": 1})
    assert "fewer than 10 texts to train on of good, rare.\n" in model_card("m", saved, [])


def test_a_new_evaluation_replaces_the_one_of_the_same_texts(tmp_path: Path) -> None:
    others = [record(part="all", share=None), record(sha256="99"), record(share=0.2), record(group="shop")]
    again = record(seed=1)
    found: list[dict[str, Any]] = []
    for each in (record(), *others, again):
        found = add_evaluation(found, each)
    assert found == [*others, again]
    (tmp_path / "evaluations.json").write_text(json.dumps(found))
    assert read_evaluations(tmp_path) == found


@pytest.mark.parametrize("content", ["{", "{}", "[NaN]", "\udcff"])
def test_files_that_are_no_evaluations(tmp_path: Path, content: str) -> None:
    assert read_evaluations(tmp_path) == []
    (tmp_path / "evaluations.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"evaluations\.json: (cannot be read|expected a list)"):
        read_evaluations(tmp_path)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"macro_f1": None}, "macro_f1: expected int or float, got None"),
        ({"texts": "many"}, "texts: expected int, got 'many'"),
        ({"loss": True}, "loss: expected int or float or null, got True"),
        ({"data": 1}, "data: expected str, got 1"),
        ({"group": 1}, "group: expected str or null, got 1"),
        ({"pictures": None}, "pictures: expected list, got None"),
        ({"pictures": [1]}, "pictures: expected names, got 1"),
        ({"classes": [1]}, "classes: expected an object, got 1"),
        ({"classes": [{"label": "good"}]}, "classes: support: expected int, got None"),
    ],
)
def test_evaluations_that_are_none(tmp_path: Path, changes: dict[str, Any], wrong: str) -> None:
    """Each would else be a traceback from where the card is made."""
    (tmp_path / "evaluations.json").write_text(json.dumps([record(), {**record(), **changes}]))
    with pytest.raises(DataError) as error:
        read_evaluations(tmp_path)
    assert str(error.value) == f"{tmp_path / 'evaluations.json'}: evaluation 1: {wrong}"
    (tmp_path / "evaluations.json").write_text("[1]")
    with pytest.raises(DataError, match="evaluation 0: expected an object, got 1"):
        read_evaluations(tmp_path)


def test_what_was_measured_at_another_temperature_is_named(saved: SavedModel) -> None:
    stale = "measured at another temperature than the model's: reviews.csv (held-out, 0.3).\n"
    other = {**record("other.csv", "all", share=None), "temperature": 1.5}
    assert stale in model_card("m", dataclasses.replace(saved, temperature=1.5), [record(), other])
    assert "another temperature" not in model_card("m", saved, [record()])


def test_the_fingerprint_is_that_of_texts_and_labels(data: LabelledTexts) -> None:
    assert fingerprint(LabelledTexts(data.texts, data.labels)) == fingerprint(data)
    assert fingerprint(data.select(range(49))) != fingerprint(data)
    assert fingerprint(LabelledTexts(data.labels, data.texts)) != fingerprint(data)

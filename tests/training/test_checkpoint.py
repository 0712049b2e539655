from __future__ import annotations

import io
import json
import os
import pickletools
from pathlib import Path
from typing import Any

import pytest
import torch

from textclf_fast.text import DataError, Vocabulary
from textclf_fast.training import check_target, load_model, save_model, store_temperature

FILES = ["config.json", "model.safetensors", "tokenizer.json", "vocabulary.json"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def save(folder: Path, toy: Any, seed: int = 0, **options: Any) -> None:
    save_model(folder, toy.model(seed), toy.vocabulary, toy.labels, **options)


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True, "dropout": 0.5}, {"padding_idx": None}]
)
def test_round_trip(tmp_path: Path, toy: Any, options: dict[str, Any]) -> None:
    model = toy.model(**options).eval()
    extra = {"options": {"epochs": 5}, "note": "naïve"}
    save_model(tmp_path / "new" / "model", model, toy.vocabulary, toy.labels, extra)
    assert names_in(tmp_path / "new") == ["model"]
    saved = load_model(tmp_path / "new" / "model")
    assert saved.model.config == model.config
    assert not saved.model.training
    assert (saved.vocabulary, saved.labels, saved.extra) == (toy.vocabulary, toy.labels, extra)
    batch = toy.data.tokens.packed(range(50))
    with torch.no_grad():
        assert torch.equal(saved.model(batch), model(batch))


def test_a_loaded_model_can_be_trained(tmp_path: Path, toy: Any) -> None:
    save(tmp_path / "model", toy)
    model = load_model(tmp_path / "model").model
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    model(toy.data.tokens.packed([0, 1])).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_nothing_pickled(tmp_path: Path, toy: Any) -> None:
    save(tmp_path / "model", toy)
    assert names_in(tmp_path / "model") == FILES
    for name in FILES:
        content = (tmp_path / "model" / name).read_bytes()
        with pytest.raises(ValueError, match=r"opcode|pickle"):
            pickletools.dis(content, out=io.StringIO())
    header_size = int.from_bytes((tmp_path / "model" / "model.safetensors").read_bytes()[:8], "little")
    assert 0 < header_size < 10_000


def test_readable_by_whoever_may_read_the_rest(tmp_path: Path, toy: Any) -> None:
    save(tmp_path / "model", toy)
    assert len({(tmp_path / "model" / name).stat().st_mode for name in FILES}) == 1


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    "failing", ["safetensors.torch.save_file", "textclf_fast.text.Vocabulary.save", "pathlib.Path.rename"]
)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_all_or_nothing(
    tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, there: bool, failing: str, error: BaseException
) -> None:
    folder = tmp_path / "model"
    if there:
        save(folder, toy, seed=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*unused: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(failing, fail)
        with pytest.raises(type(error)):
            save(folder, toy, overwrite=there)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert names_in(tmp_path) == (["model"] if there else [])


def test_a_failure_between_the_two_renames_brings_the_old_model_back(
    tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "model", toy, seed=1)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    rename = Path.rename

    def fail_on_the_new_one(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_new_one)
    with pytest.raises(OSError, match="Input/output"):
        save(tmp_path / "model", toy, overwrite=True)
    assert names_in(tmp_path) == ["model"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


def test_overwrite_replaces_the_model(tmp_path: Path, toy: Any) -> None:
    save(tmp_path / "model", toy, seed=1)
    with pytest.raises(FileExistsError, match="is there and not empty"):
        save(tmp_path / "model", toy)
    save(tmp_path / "model", toy, overwrite=True)
    assert names_in(tmp_path) == ["model"]
    assert torch.equal(load_model(tmp_path / "model").model.fc.weight, toy.model().fc.weight)


def test_empty_directory_is_used(tmp_path: Path, toy: Any) -> None:
    save(tmp_path, toy)
    assert names_in(tmp_path) == FILES


def test_only_models_are_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match=r"holds 'thesis.tex', which no model has"):
        check_target(tmp_path, overwrite=True)
    with pytest.raises(FileExistsError, match="is a file"):
        check_target(tmp_path / "thesis.tex", overwrite=True)
    with pytest.raises(NotADirectoryError, match="is a file"):
        check_target(tmp_path / "thesis.tex" / "model")
    (tmp_path / "thesis.tex").rename(tmp_path / "README.md")  # not the card of a model
    with pytest.raises(FileExistsError, match=r"holds 'README.md' and no model"):
        check_target(tmp_path, overwrite=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_target(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="is not writable"):
        check_target(tmp_path / "model")


def test_what_does_not_belong_together_is_not_saved(tmp_path: Path, toy: Any) -> None:
    small = Vocabulary(toy.vocabulary.tokens[:5])
    with pytest.raises(ValueError, match=r"vocabulary: expected .* got 5"):
        save_model(tmp_path / "model", toy.model(), small, toy.labels)
    for labels in (["a"], ["a", "a"]):
        with pytest.raises(ValueError, match="labels: expected 2 different ones"):
            save_model(tmp_path / "model", toy.model(), toy.vocabulary, labels)
    with pytest.raises(TypeError, match="JSON"):
        save_model(tmp_path / "model", toy.model(), toy.vocabulary, toy.labels, {"function": print})
    assert names_in(tmp_path) == []


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def damage(folder: Path, how: str) -> None:
    if how.startswith("no "):
        (folder / how.removeprefix("no ")).unlink()
    elif how == "cut weights":
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "cut config":
        path = folder / "config.json"
        path.write_bytes(path.read_bytes()[:-10])
    elif how == "foreign config":
        edit_config(folder, format="something else")
    elif how == "future config":
        edit_config(folder, format_version=3)
    elif how == "no labels":
        edit_config(folder, labels=None)
    elif how == "other size":
        config = json.loads((folder / "config.json").read_text())
        edit_config(folder, model=config["model"] | {"hidden_dim": 17})
    elif how == "unknown option":
        edit_config(folder, model={"kind": "lstm", "colour": "red"})
    elif how == "unknown kind":
        edit_config(folder, model={"kind": "oracle"})
    elif how == "unknown tokenizer":
        (folder / "tokenizer.json").write_text('{"kind": "syllables"}')
    elif how == "foreign tokenizer":
        (folder / "tokenizer.json").write_text("[]")
    elif how == "other labels":
        edit_config(folder, labels=["a", "b", "c"])
    elif how == "other vocabulary":
        Vocabulary(["<pad>", "<unk>", "a"]).save(folder / "vocabulary.json")
    else:
        raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no config.json", "not a model: there is no config.json in it"),
        ("no model.safetensors", "there is no model.safetensors in it"),
        ("no tokenizer.json", "there is no tokenizer.json in it"),
        ("no vocabulary.json", "there is no vocabulary.json in it"),
        ("cut weights", "model.safetensors: cannot be read"),
        ("cut config", "config.json: not JSON"),
        ("foreign config", "config.json: not the configuration of a textclf_fast text classifier"),
        ("future config", "config.json: is of format version 3, expected 2"),
        ("other size", "the files do not fit together: .*size mismatch"),
        ("unknown option", "the files do not fit together: .*colour"),
        ("unknown kind", "the files do not fit together: kind: expected one of .*, got 'oracle'"),
        ("unknown tokenizer", "the files do not fit together: kind: expected one of .*, got 'syllables'"),
        ("foreign tokenizer", "tokenizer.json: expected an object"),
        ("other labels", "the files do not fit together: labels: expected 2"),
        ("other vocabulary", "the files do not fit together: vocabulary: expected"),
    ],
)
def test_damaged_models(tmp_path: Path, toy: Any, how: str, message: str) -> None:
    save(tmp_path / "model", toy)
    damage(tmp_path / "model", how)
    with pytest.raises(DataError, match=message) as caught:
        load_model(tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "model") in str(caught.value)


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such directory"):
        load_model(tmp_path / "model")


def test_a_temperature_divides_the_logits(tmp_path: Path, toy: Any) -> None:
    save(tmp_path / "model", toy)
    batch = toy.data.tokens.packed(range(20))
    plain = load_model(tmp_path / "model")
    assert plain.temperature == 1
    for temperature in (3.0, 0.5, 1.0):  # each in place of the one before
        store_temperature(tmp_path / "model", temperature)
        saved = load_model(tmp_path / "model")
        assert saved.temperature == temperature
        with torch.no_grad():
            torch.testing.assert_close(saved.model(batch), plain.model(batch) / temperature)
    assert names_in(tmp_path / "model") == FILES


@pytest.mark.parametrize("number", [0, -1.0, float("nan"), float("inf"), "hot", True])
def test_what_is_no_temperature(tmp_path: Path, toy: Any, number: Any) -> None:
    save(tmp_path / "model", toy)
    with pytest.raises(ValueError, match="temperature: expected a finite number above 0"):
        store_temperature(tmp_path / "model", number)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "temperature": number}))
    with pytest.raises(DataError, match="do not fit together: temperature: expected a finite number"):
        load_model(tmp_path / "model")

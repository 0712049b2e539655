"""examples/digits.py, with few images and epochs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("sklearn")


def test_joined_inputs_tell_more_than_a_half(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "examples" / "digits.py"
    spec = importlib.util.spec_from_file_location("digits", path)
    assert spec is not None
    assert spec.loader is not None
    digits = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(digits)
    accuracies = digits.main(["--train", "200", "--epochs", "5"])
    assert list(accuracies) == ["image", "sentence", "ink", "image + sentence + ink"]
    assert accuracies["image"] > 0.3
    assert 0.1 < accuracies["sentence"] < 0.3  # half of ten digits: a fifth
    assert accuracies["ink"] > 0.25
    assert accuracies["image + sentence + ink"] > max(accuracies["sentence"], accuracies["ink"])
    assert len(capsys.readouterr().out.splitlines()) == 5
    with pytest.raises(SystemExit):
        digits.main(["--epochs", "0"])

"""From what was measured to docs/results.md; what was not is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results_page

MACHINE = {"CPU": "a fast one", "threads": "2"}
OTHER = {"CPU": "another", "threads": "1"}


def row(data: str, model: str, target: float, *values: float) -> dict[str, Any]:
    return {
        "data": data,
        "model": model,
        "command": f"textclf-fast train {data} --out model",
        "metric": "accuracy",
        "values": {str(seed): value for seed, value in enumerate(values)},
        "commits": {str(seed): f"{12 + seed}ab" for seed in range(len(values))},
        "machines": {str(seed): OTHER if seed else MACHINE for seed in range(len(values))},
        "target": target,
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [row("rt", "recipe", 0.71, 0.7, 0.73), row("trec", "tuned", 0.92, 0.9)]
    rows[1]["language_model"] = "textclf-fast pretrain trec --out lm"
    goal = {"what": "p50, ms", "measured": 0.2, "bound": 0.25, "least": False, "met": True}
    run = {"way": "scratch", "labels": 100, "seed": 0, "accuracy": 0.5}
    records = {
        "classification": {"rows": rows},
        "predictor": {
            "machine": MACHINE,
            "commit": "12ab",
            "command": "python -m benchmarks.predictor",
            "targets": [goal],
        },
        "baseline-rt": {
            "machine": MACHINE,
            "rows": [{"name": "TF-IDF + regression", "accuracy": 0.764, "macro_f1": 0.7611}],
        },
        "labels-rt": {
            "machine": MACHINE,
            "command": "python -m benchmarks.labels --data rt",
            "note": "The settings were looked at once.",
            "runs": [
                run,
                {**run, "seed": 1, "accuracy": 0.6},
                {**run, "way": "pretrained", "labels": 1000},
                {**run, "way": "pretrained", "labels": 5000, "accuracy": 0.7},
                {**run, "labels": 5000, "accuracy": 0.7},
                {**run, "way": "vectors", "labels": 1000},
            ],
        },
    }
    for name, record in records.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    return tmp_path


def test_what_was_measured_is_on_the_page(results: Path) -> None:
    (results / "labels-rt.png").touch()
    page = results_page.page(results, results, "results.png")
    for line in (
        "Measured at commits 12ab, 13ab, on CPU a fast one, threads 2; on CPU another, threads 1.",
        "Measured at commit 12ab, on CPU a fast one, threads 2.",
        "1 of the 2 rows measured reach their targets. `python -m benchmarks.classification` measures all, and says "
        "how settings were chosen.",
        "![Values beside their targets](results.png)",
        "| recipe | accuracy | 71.5 % | 70.0 %, 73.0 % | >= 71.0 % | yes |",
        "| tuned | accuracy | 90.0 % | 90.0 % | >= 92.0 % | no |",
        "textclf-fast train rt --out model",
        "textclf-fast pretrain trec --out lm",
        "Baselines on the same split. Measured on CPU a fast one, threads 2.",
        "| TF-IDF + regression | 76.4 % | 76.1 % |",
        "textclf-fast baseline rt --json > benchmarks/results/baseline-rt.json",
        "![Accuracy against the number of labels](labels-rt.png)",
        "Mean accuracy of 1 to 2 seeds:",
        "The settings were looked at once.",
        "| labels | scratch | pretrained | vectors |",
        "| 100 | 55.0 % | not measured | not measured |",
        "| 1,000 | not measured | 50.0 % | 50.0 % |",
        "From scratch, 5,000 labels give 70.0 %. The least of these numbers with which the others give as much: "
        "`pretrained` 5,000, `vectors` more than 1,000. Target: with pre-training a fifth, 1,000.",
        "| p50, ms | 0.2 | <= 0.25 | yes |",
        "python -m benchmarks.predictor",
    ):
        assert f"\n{line}\n" in page


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    page = results_page.page(tmp_path, tmp_path, None)
    assert page.count("\nNot measured: `python -m benchmarks.classification`.\n") == len(results_page.DATA)
    for line in (
        "Not measured: `python -m benchmarks.labels --data trec --out benchmarks/results/labels-trec.json`.",
        "Baselines: not measured, `textclf-fast baseline langid60 --tokenizer character --json > "
        "benchmarks/results/baseline-langid60.json`.",
        "Baselines: not measured, `textclf-fast baseline 20ng --json > benchmarks/results/baseline-20ng.json`.",
        "64 connections on loopback, the median of rounds of 30 s: not measured, `python -m benchmarks.serve`.",
    ):
        assert f"\n{line}\n" in page
    assert "![" not in page


def test_writes_page_and_picture(results: Path) -> None:
    pytest.importorskip("matplotlib")
    results_page.main(["--results", str(results), "--page", str(results / "results.md")])
    assert (results / "results.md").read_text() == results_page.page(results, results, "results.png")
    assert (results / "results.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_in_the_repository_is_of_the_records_there() -> None:
    """Who records something runs `make report`, too."""
    docs = results_page.ROOT / "docs"
    picture = "results.png" if (docs / "results.png").exists() else None
    page = results_page.page(results_page.ROOT / "benchmarks" / "results", docs, picture)
    assert (docs / "results.md").read_text(encoding="utf-8") == page

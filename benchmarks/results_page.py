"""Writes docs/results.md and docs/results.png from what was measured: `python -m benchmarks.results_page`.

Each section has the command that measures it, and says "not measured" where its file is missing in benchmarks/results:

    classification.json   {rows: [{data, model, command, metric, target, values, commits, machines}]}, the last three by
                          seed
    baseline-DATA.json    what `textclf-fast baseline DATA --json` prints
    labels-DATA.json      of benchmarks.labels
    predictor.json, serve.json   {machine, commit, command, targets: [{what, measured, bound, least, met}]}
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

# The data sets in their order, and the targets that stand where nothing was measured.
DATA = {
    "rt": "sentences of movie reviews, split by movie; accuracy: the user's recipe >= 71 %, tuned >= 76.5 %, "
    "pre-trained >= 78.5 %",
    "trec": "questions, 6 classes; accuracy >= 92 %",
    "sms": "short messages, spam or not; F1 of spam >= 0.95",
    "langid60": "sentences of 60 languages, by characters; accuracy >= 97 %",
    "20ng": "news group messages, 20 classes; accuracy: the perceptron >= 83 %, the LSTM >= 75 %",
}
SERVICE = {
    "predictor": ("Predictor", "loading, latency of one sentence, throughput"),
    "serve": ("Serve", "64 connections on loopback, the median of rounds of 30 s"),
}
# Of the 60 languages each has its own words: they are told apart by characters.
BASELINE_OPTIONS = {"langid60": " --tokenizer character"}
LABELS_COMMAND = "python -m benchmarks.labels --data {data} --out benchmarks/results/labels-{data}.json"

_HEAD = """\
# Results

Made by `make report` from [benchmarks/results](../benchmarks/results); do not edit by hand. `DATA` is a data set of
`textclf-fast data`; its split is fixed, and the part to train on and the part held out, which all values here are of,
share no text and no group. The regression's settings among the baselines, C = 10 and up to two words, were chosen
after a look at held-out parts of rt, trec and sms.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results.md")
    given = parser.parse_args(arguments)
    picture = given.page.with_suffix(".png")
    rows = (_load(given.results / "classification.json") or {"rows": []})["rows"]
    try:
        drawn = draw(rows, picture)
    except ImportError as error:
        drawn = picture.exists()
        print(f"no new picture ({error}): pip install 'textclf_fast[report]'")
    given.page.write_text(page(given.results, given.page.parent, picture.name if drawn else None), encoding="utf-8")
    print(f"written: {given.page}" + (f", {picture}" if drawn else ""))


def page(results: Path, docs: Path, picture: str | None) -> str:
    """The whole page.

    Args:
        results: the folder of the JSON files.
        docs: the folder that the page will be in, with labels-DATA.png.
        picture: the file of the first picture, if there is one.
    """
    parts = [_HEAD, *_accuracy(results, picture)]
    for data in DATA:
        parts += _labels(results / f"labels-{data}.json", docs / f"labels-{data}.png", data)
    for name, (title, about) in SERVICE.items():
        parts += _service(results / f"{name}.json", name, title, about)
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _accuracy(results: Path, picture: str | None) -> list[str]:
    record = _load(results / "classification.json")
    rows = record["rows"] if record else []
    parts = ["## Classification"]
    if record:
        parts.append(_made_on(record))
        reached = sum(statistics.mean(row["values"].values()) >= row["target"] for row in rows)
        parts.append(
            f"{reached} of the {len(rows)} rows measured reach their targets. `python -m benchmarks.classification` "
            "measures all, and says how settings were chosen."
        )
    if picture:
        parts.append(f"![Values beside their targets]({picture})")
    for data, about in DATA.items():
        parts += [f"### {data}", f"{about[0].upper()}{about[1:]}."]
        own = [row for row in rows if row["data"] == data]
        if own:
            parts.append(_table(("model", "measure", "mean", "single values", "target", "reached"), map(_row, own)))
            before = dict.fromkeys(row.get("language_model") for row in own)  # what makes a model to begin with
            parts.append(_commands([*filter(None, before), *(row["command"] for row in own)]))
        else:
            parts.append("Not measured: `python -m benchmarks.classification`.")
        parts += _baseline(results / f"baseline-{data}.json", data)
    return parts


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    values = list(row["values"].values())
    mean = statistics.mean(values)
    reached = "yes" if mean >= row["target"] else "no"
    single = ", ".join(_percent(value) for value in values)
    return row["model"], row["metric"], _percent(mean), single, f">= {_percent(row['target'])}", reached


def _baseline(path: Path, data: str) -> list[str]:
    """What simple ways reach on the same split."""
    command = f"textclf-fast baseline {data}{BASELINE_OPTIONS.get(data, '')} --json > benchmarks/results/{path.name}"
    record = _load(path)
    if record is None:
        return [f"Baselines: not measured, `{command}`."]
    rows = [(each["name"], _percent(each["accuracy"]), _percent(each["macro_f1"])) for each in record["rows"]]
    return [
        f"Baselines on the same split. {_made_on(record)}",
        _table(("", "accuracy", "macro-F1"), rows),
        _commands([command]),
    ]


def _labels(path: Path, picture: Path, data: str) -> list[str]:
    """Accuracy against the number of labels."""
    record = _load(path)
    if record is None and data not in ("rt", "trec"):  # on these two it is wanted
        return []
    parts = [f"## Labels needed, {data}"]
    if record is None:
        return [*parts, f"Not measured: `{LABELS_COMMAND.format(data=data)}`."]
    parts.append(_made_on(record))
    if picture.exists():
        parts.append(f"![Accuracy against the number of labels]({picture.name})")
    ways = list(dict.fromkeys(run["way"] for run in record["runs"]))
    sizes = sorted({run["labels"] for run in record["runs"]})
    rows = [
        (f"{size:,}", *(_mean_of(run["accuracy"] for run in record["runs"] if _is(run, way, size)) for way in ways))
        for size in sizes
    ]
    seeds = Counter((run["way"], run["labels"]) for run in record["runs"]).values()
    count = f"{min(seeds)} to {max(seeds)}" if min(seeds) < max(seeds) else f"{max(seeds)}"
    parts.append(f"Mean accuracy of {count} seed{'s' if max(seeds) > 1 else ''}:")
    parts.append(_table(("labels", *ways), rows))
    parts += _labels_needed(record["runs"], ways, sizes)
    if note := record.get("note"):
        parts.append(note)
    return [*parts, _commands([record["command"]])]


def _labels_needed(runs: Sequence[Mapping[str, Any]], ways: Sequence[str], sizes: Sequence[int]) -> list[str]:
    """With how many labels each way gives what all of them give from scratch."""

    def mean(way: str, size: int) -> float:
        found = [run["accuracy"] for run in runs if _is(run, way, size)]
        return statistics.mean(found) if found else 0.0

    whole = mean("scratch", sizes[-1])
    if not whole:
        return []

    def needed(way: str) -> str:
        measured = [size for size in sizes if mean(way, size)]
        return next((f"{size:,}" for size in measured if mean(way, size) >= whole), f"more than {measured[-1]:,}")

    least = (f"`{way}` {needed(way)}" for way in ways if way != "scratch")
    return [
        f"From scratch, {sizes[-1]:,} labels give {_percent(whole)}. The least of these numbers with which the others "
        f"give as much: {', '.join(least)}. Target: with pre-training a fifth, {sizes[-1] // 5:,}."
    ]


def _is(run: Mapping[str, Any], way: str, labels: int) -> bool:
    return (run["way"], run["labels"]) == (way, labels)


def _service(path: Path, name: str, title: str, about: str) -> list[str]:
    """Figures beside their targets."""
    record = _load(path)
    if record is None:
        return [f"## {title}", f"{about[0].upper()}{about[1:]}: not measured, `python -m benchmarks.{name}`."]
    rows = [
        (
            goal["what"],
            f"{goal['measured']:.4g}",
            f"{'>=' if goal['least'] else '<='} {goal['bound']:g}",
            "yes" if goal["met"] else "no",
        )
        for goal in record["targets"]
    ]
    table = _table(("", "measured", "target", "reached"), rows)
    return [f"## {title}", _made_on(record), table, _commands([record["command"]])]


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """A line for each row of classification.json: the seeds' values, their mean, and the target. False without any.

    Raises:
        ImportError: there is no matplotlib.
    """
    if not rows:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.4 + 0.4 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, row in enumerate(rows):
        values = [100 * value for value in row["values"].values()]
        axes.plot(values, [place] * len(values), linestyle="", marker="o", markersize=4, color="#56B4E9")
        axes.plot(statistics.mean(values), place, marker="o", markersize=8, color="#0072B2")
        axes.plot([100 * row["target"]] * 2, [place - 0.35, place + 0.35], color="black", linewidth=2)
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("% on the part held out, accuracy if nothing is said\ndark: mean of the seeds, black: target")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, format="png")
    return True


def _name(row: Mapping[str, Any]) -> str:
    metric = "" if row["metric"] == "accuracy" else f" ({row['metric']})"
    return f"{row['data']}: {row['model']}{metric}"


def _load(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _made_on(record: Mapping[str, Any]) -> str:
    of_rows = {commit for row in record.get("rows", []) for commit in row.get("commits", {}).values()}
    commits = sorted(of_rows | ({record["commit"]} if "commit" in record else set()))
    where = f"Measured at commit{'s' * (len(commits) > 1)} {', '.join(commits)}, on " if commits else "Measured on "
    machines = [machine for row in record.get("rows", []) for machine in row.get("machines", {}).values()]
    machines += [record["machine"]] if "machine" in record else []
    said = (", ".join(f"{name} {value}" for name, value in machine.items()) for machine in machines)
    return where + "; on ".join(dict.fromkeys(said)) + "."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _mean_of(values: Iterable[float]) -> str:
    found = list(values)
    return _percent(statistics.mean(found)) if found else "not measured"


def _commands(commands: Iterable[str]) -> str:
    return "\n".join(["```", *commands, "```"])


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()

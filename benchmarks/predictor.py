"""Loading, latency and throughput of a predictor: `python -m benchmarks.predictor`.

The model is the user's recipe (10,000 words, 100, 128, two classes) on the sentences of rt. Loading is timed in new
processes, after torch's import; latency over single sentences of 20 words, tokenising included; throughput over all
sentences, beside the same model in plain PyTorch in batches of 32, padded, in the order in which the sentences come.
Plain PyTorch gets the same tokenizer and vocabulary, and its token ids are timed once with tokenising and once without.
Ours is timed in float32 and with weights="bfloat16", whose probabilities differ; the same, where the processor does not
multiply it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

import textclf_fast
from benchmarks.record import Goal, percentiles, write_record
from benchmarks.timing import seconds, settle
from benchmarks.trained import of_words, write_model
from textclf_fast.models import PlainTextClassifier
from textclf_fast.predictor import Predictor
from textclf_fast.text import RaggedTokens, encode_texts

_LOAD = """
import sys, time
import torch
begin = time.perf_counter()
import textclf_fast
textclf_fast.load(sys.argv[1])
print(time.perf_counter() - begin)
"""
_PLAIN_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--rounds", type=int, default=7, help="of the throughputs and of loading")
    parser.add_argument("--calls", type=int, default=10_000, help="of single sentences")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/predictor.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        texts = write_model(directory).texts
        loading = [_load(directory) for _ in range(arguments.rounds)]
        predictor = textclf_fast.load(directory)
        lowered = textclf_fast.load(directory, weights="bfloat16")
    latency = percentiles(_latencies(predictor, of_words(texts, 20), arguments.calls))
    throughput = _throughputs(predictor, lowered, texts, arguments.rounds)
    with_tokens, model_alone, with_tokens_lowered, model_alone_lowered = (
        throughput[f"plain, {what}"]["seconds"] / throughput[f"{whose}, {what}"]["seconds"]
        for whose in ("ours", "ours in bfloat16")
        for what in ("tokenising", "token ids given")
    )
    goals = [
        Goal("loading, s", statistics.median(loading), 0.3),
        Goal("a sentence of 20 words, p50, ms", latency["p50_ms"], 0.25),
        Goal("a sentence of 20 words, p99, ms", latency["p99_ms"], 0.6),
        Goal("all sentences, plain / ours, tokenising included", with_tokens, 5, least=True),
        Goal("all sentences, plain / ours, token ids given", model_alone, 5, least=True),
        Goal("all sentences, plain / ours in bfloat16, tokenising included", with_tokens_lowered, 5, least=True),
        Goal("all sentences, plain / ours in bfloat16, token ids given", model_alone_lowered, 5, least=True),
    ]
    exact, near = (each.predict_proba(texts) for each in (predictor, lowered))
    difference = {
        "probability": float(abs(exact - near).max()),
        "labels": int((exact.argmax(1) != near.argmax(1)).sum()),
    }
    measured = {
        "loading_seconds": loading,
        "latency": latency,
        "throughput": throughput,
        "largest_difference_in_bfloat16": difference,
    }
    write_record(arguments.out, "benchmarks.predictor", goals, measured)


def _load(directory: Path) -> float:
    run = subprocess.run([sys.executable, "-c", _LOAD, str(directory)], capture_output=True, text=True, check=True)
    return float(run.stdout)


def _latencies(predictor: Predictor, sentences: list[str], calls: int) -> list[float]:
    """Seconds of single calls, each on another sentence."""
    for number in range(500):
        predictor.predict_proba([sentences[number % len(sentences)]])
    found = []
    for number in range(calls):
        text = [sentences[number % len(sentences)]]
        begin = time.perf_counter()
        predictor.predict_proba(text)
        found.append(time.perf_counter() - begin)
    return found


def _throughputs(predictor: Predictor, lowered: Predictor, texts: list[str], rounds: int) -> dict[str, Any]:
    """Seconds, and texts a second, of going through all texts: medians of rounds in turns."""
    plain = _plain(predictor)
    encode = lambda: encode_texts(texts, predictor._tokenizer, predictor._vocabulary)  # noqa: E731 (a call to be timed)
    tokens = encode()
    calls: dict[str, Callable[[], Any]] = {
        "ours, tokenising": lambda: predictor.predict_proba(texts),
        "plain, tokenising": lambda: _run_plain(plain, encode()),
        "ours, token ids given": lambda: predictor._predict_tokens(tokens),
        "ours in bfloat16, tokenising": lambda: lowered.predict_proba(texts),
        "ours in bfloat16, token ids given": lambda: lowered._predict_tokens(tokens),
        "plain, token ids given": lambda: _run_plain(plain, tokens),
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            settle()
            found[name].append(seconds(call))
    medians = {name: statistics.median(times) for name, times in found.items()}
    return {name: {"seconds": median, "texts_a_second": len(texts) / median} for name, median in medians.items()}


def _plain(predictor: Predictor) -> PlainTextClassifier:
    ours = predictor._model
    config = ours.config
    plain = PlainTextClassifier(*(config[name] for name in ("vocab_size", "embedding_dim", "hidden_dim", "output_dim")))
    plain.load_state_dict({name.removeprefix("encoder."): weight for name, weight in ours.state_dict().items()})
    return plain.eval()


def _run_plain(model: PlainTextClassifier, tokens: RaggedTokens) -> np.ndarray:
    rows = [torch.from_numpy(row) for row in tokens]
    found = []
    with torch.no_grad():
        for begin in range(0, len(rows), _PLAIN_BATCH):
            found.append(model(pad_sequence(rows[begin : begin + _PLAIN_BATCH])).softmax(1).numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    main()

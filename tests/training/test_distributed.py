"""Two processes under torchrun train one model: as one process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import distributed_training
import pytest
import torch
from distributed_training import OPTIONS, SMALL, TOY, Result, run
from tiny_encoder import write_encoder

import textclf_fast
from textclf_fast.cli.app import main
from textclf_fast.training import load_model
from textclf_fast.training.distributed import Ranks

RANKS = 2


class Ran:
    def __init__(self, folder: Path, output: str) -> None:
        self.folder = folder
        self.output = output
        loaded = [torch.load(folder / f"rank{rank}.pt") for rank in range(RANKS)]
        self.results = {name: [Result(*found[name]) for found in loaded] for name in loaded[0]}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    torch_distributed = pytest.importorskip("torch.distributed")
    if not (torch_distributed.is_available() and torch_distributed.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("ranks")
    encoder = []
    if importlib.util.find_spec("sentence_transformers"):
        encoder = [str(folder / "encoder")]
        write_encoder(folder / "encoder")
    path = os.pathsep.join([str(Path(textclf_fast.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
    done = subprocess.run(
        [sys.executable, *launch, distributed_training.__file__, str(folder), *encoder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout
    return Ran(folder, done.stdout)


@pytest.mark.parametrize("name", OPTIONS)
def test_as_one_process(name: str, ran: Ran) -> None:
    want = run(OPTIONS[name])
    close = {"rtol": 1e-9, "atol": 1e-10}
    for got in ran.results[name]:
        torch.testing.assert_close(got.losses, want.losses, **close)
        torch.testing.assert_close(got.held_out, want.held_out, **close)
        torch.testing.assert_close(got.state, want.state, **close)


@pytest.mark.parametrize("name", [*OPTIONS, "not stopped", "resumed"])
def test_both_have_the_same_bits(name: str, ran: Ran) -> None:
    first, second = ran.results[name]
    assert first.losses == second.losses
    assert all(torch.equal(first.state[key], second.state[key]) for key in first.state)


def test_resumed_to_the_same_bits(ran: Ran) -> None:
    """Dropout included, of which each process has its own."""
    for got, want in zip(ran.results["resumed"], ran.results["not stopped"], strict=True):
        assert got.losses == want.losses
        assert got.held_out == want.held_out
        assert all(torch.equal(got.state[key], want.state[key]) for key in want.state)


def test_the_program(ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(TOY), "--out", str(tmp_path / "model"), *SMALL]) == 0
    ours, theirs = load_model(ran.folder / "model"), load_model(tmp_path / "model")
    for name, weight in theirs.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name], weight, rtol=1e-3, atol=1e-4)
    trainings = 3 + (ran.folder / "encoder").exists()
    assert ran.output.count("epoch 2/2: ") == trainings, "one for each: the first process alone speaks"
    assert not (ran.folder / "model.training").exists()
    assert ran.output.count("error: nowhere.csv: there is no such file") == 1
    assert ran.output.count("error: there is no directory 'nowhere', ") == (ran.folder / "encoder").exists()
    assert "Traceback" not in ran.output


def test_texts_that_the_first_process_generated(ran: Ran) -> None:
    start = load_model(ran.folder / "generated").extra["start"]
    assert start["their number"] == start["texts that the language model generated"] > 10


def test_what_was_learnt_without_labels_is_kept(ran: Ran) -> None:
    """By all processes: a training that is resumed has no teachers, and ends with the same bits."""
    whole, again = (load_model(ran.folder / name) for name in ("at once", "again"))
    assert all(torch.equal(again.model.state_dict()[name], weight) for name, weight in whole.model.state_dict().items())
    assert ran.output.count("teacher 1/1: ") == 3
    assert ran.output.count("texts without labels, by the teachers: ") == 4 + (ran.folder / "encoder").exists()
    assert "goes on in epoch 2, after step " in ran.output
    if (ran.folder / "encoder").exists():
        assert ran.output.count("reads the ") == 3
        assert ran.output.count("have a mean cosine of ") == 3


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_rows_are_shared_out_and_come_back_in_their_order(count: int) -> None:
    """By three processes, some of which may have none."""
    given: dict[int, torch.Tensor] = {}

    class OneOfThree(Ranks):
        size = 3

        def __init__(self, rank: int) -> None:
            self.rank = rank

        def gather(self, tensor: torch.Tensor) -> torch.Tensor:
            given[self.rank] = tensor
            return torch.stack([given[rank] for rank in range(3)]) if len(given) == 3 else tensor.expand(3, -1, -1)

    for rank in range(3):
        found = OneOfThree(rank).share_out(count, lambda rows: torch.tensor([[10.0 * row, 1.0] for row in rows]))
    assert found.tolist() == [[10.0 * row, 1.0] for row in range(count)]
    alone = Ranks().share_out(count, lambda rows: torch.tensor([[10.0 * row, 1.0] for row in rows]))
    assert torch.equal(alone, found)


def test_processes_share_the_questions_to_a_teacher(ran: Ran) -> None:
    """Each asks about its own texts, and all of them have all the answers, in the texts' order."""
    if not (ran.folder / "encoder").exists():
        pytest.skip("sentence-transformers is not installed")
    start = load_model(ran.folder / "taught").extra["start"]
    assert start["teacher, whose probabilities are their labels"] == str(ran.folder / "encoder")
    assert ran.output.count(f"teacher 1/1, {ran.folder / 'encoder'}: held-out accuracy ") == 1
    few = ran.folder / "few0.csv"
    command = ["train", str(few), *SMALL, "--unlabelled", str(TOY), "--teacher", str(ran.folder / "encoder")]
    assert main([*command, "--teacher-epochs", "1", "--variants", "1", "--out", str(ran.folder / "alone")]) == 0
    alone = load_model(ran.folder / "alone").extra["start"]
    assert alone["their number"] == start["their number"]
    assert alone["how sure these were"] == pytest.approx(start["how sure these were"], abs=0.01)

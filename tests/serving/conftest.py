"""Predictors to serve, and a server in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from textclf_fast.models import MLPClassifier
from textclf_fast.predictor import Predictor
from textclf_fast.storage import save_model
from textclf_fast.text import Vocabulary

WORDS = ["good", "bad", "film", "<script>", "."]


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    """Finds "good" good and "bad" bad."""
    model = MLPClassifier(2 + len(WORDS), 4, 8, 2, activation="relu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embedding.weight[2, 0] = model.embedding.weight[3, 1] = 1
        model.hidden[0].weight[0, 0] = model.hidden[0].weight[1, 1] = 4
        model.fc.weight[1, 0] = model.fc.weight[0, 1] = 1
    return Predictor(model, Vocabulary(["<pad>", "<unk>", *WORDS]), ["negative", "positive"])


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, predictor: Predictor) -> Path:
    directory = tmp_path_factory.mktemp("models") / "words"
    save_model(directory, predictor._model, predictor._vocabulary, predictor.labels)
    return directory


class Server:
    """`textclf-fast serve` in a process."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "textclf_fast", "serve", str(directory), "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_PROXY": "*"},
            cwd=directory.parent,  # not the source folder, which `-m` would import from
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def get(self, path: str) -> str:
        with _open(urllib.request.Request(self.url + path)) as answer:
            return answer.read().decode()

    def predict(self, content: Any) -> tuple[int, Any]:
        """The status and what the JSON of the answer holds."""
        request = urllib.request.Request(
            self.url + "/predict", json.dumps(content).encode(), {"content-type": "application/json"}
        )
        try:
            with _open(request) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


def _open(request: urllib.request.Request) -> Any:
    """Whatever proxy the machine has."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120)


@pytest.fixture
def start(model: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server with these options."""
    servers: list[Server] = []

    def start(*options: str) -> Server:
        servers.append(Server(model, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()

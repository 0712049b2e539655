"""The page in a browser, where there is one."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path")


def show(url: str, folder: Path) -> str:
    """What the page has become once its scripts have run, as HTML."""
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-proxy-server", "--disable-quic"),
        *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
        *(f"--user-data-dir={folder}", "--virtual-time-budget=20000", "--dump-dom"),
    ]
    run = subprocess.run([str(CHROMIUM), *options, url], capture_output=True, text=True, check=True)
    return run.stdout


def test_shows_labels_and_words(start: Callable[..., Any], tmp_path: Path) -> None:
    server = start()
    page = show(f"{server.url}/#{quote('A good <script> zyzzyva film')}", tmp_path)
    assert re.search(r'<section id="result">', page), "no longer hidden"
    labels = re.findall(r'<div class="label"><span class="">(\w+)</span>.*?<span class="number">([\d.]+)%', page)
    assert [label for label, _ in labels] == ["positive", "negative"]
    assert float(labels[0][1]) + float(labels[1][1]) == pytest.approx(100, abs=0.2)
    bars = re.findall(r'<div class="bar" style="width: ([\d.]+)%', page)
    assert bars == [number for _, number in labels]
    words = re.findall(r'<span class="(word(?: unknown)?)"[^>]* style="([^"]*)"[^>]*>([^<]*)</span>', page)
    assert [html.unescape(word) for _, _, word in words] == ["a", "good", "<", "script", ">", "zyzzyva", "film"]
    assert [kind for kind, _, _ in words] == ["word unknown", "word", *["word unknown"] * 4, "word"]
    assert "--for), 0.75" in words[1][1], "the word that mattered most"


def test_says_what_is_wrong(start: Callable[..., Any], tmp_path: Path) -> None:
    server = start("--max-characters", "5")
    page = show(f"{server.url}/#too%20long", tmp_path)
    assert '<p id="error" role="alert">text: expected at most 5 characters, got 8</p>' in page
    assert '<section id="result" hidden' in page


def test_waits_for_a_text(start: Callable[..., Any], tmp_path: Path) -> None:
    server = start()
    assert '<section id="result" hidden' in show(server.url, tmp_path)
    assert "textclf_request_seconds_count 0" in server.get("/metrics")

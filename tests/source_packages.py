"""Packages of the source folder that are not installed, imported by their path: with the folder itself on Python's
path, it would hide the installed package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def load(name: str) -> None:
    """Makes `import NAME` find the folder of that name."""
    if hasattr(sys.modules.get(name), "__file__"):
        return
    folder = ROOT / name
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)

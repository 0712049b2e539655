#!/bin/sh
# Builds, tests and measures on a machine with a GPU, in ten minutes, and writes one JSON: benchmarks/gpu/run.py says how.
# Needs Python (variable PYTHON) with torch, pytest and what a build needs, and nvcc; no network. Where there is no GPU:
# benchmarks/gpu/run.sh --dry-run
exec "${PYTHON:-python3}" "$(dirname "$0")/run.py" "$@"

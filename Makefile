# make demo | test | bench | lint.  Each makes its own virtual environment in .venv, installs this folder into it, and can
# be run again: what is up to date is not done twice.  PYTHON names the interpreter: make demo PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt

# Stamps: a file in .venv says when a thing was last done.
TORCH := .venv/.torch
DEMO := .venv/.installed-report
TEST := .venv/.installed-test
BENCH := .venv/.installed-bench
LINT := .venv/.installed-lint

SOURCES := pyproject.toml setup.py MANIFEST.in constraints.txt $(shell find textclf_fast csrc build_backend -type f \
	! -name '*.so' ! -name '*.pyc' ! -name _build.txt)
CPP_SOURCES := $(shell find csrc tests -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o -name '*.inl')

.PHONY: help demo test bench lint
help:
	@echo "make demo   train the classifier on real reviews, with nn.LSTM and with ours, and compare them"
	@echo "make test   install with the test extras and run the tests"
	@echo "make bench  time ours against nn.LSTM, ONNX Runtime and OpenVINO; write docs/performance.md"
	@echo "make lint   ruff, mypy, clang-format"

demo: $(DEMO)
	@echo "== demo: training the same classifier with nn.LSTM and with textclf_fast"
	$(BIN)/textclf-fast demo

test: $(TEST)
	@echo "== test: running the tests against the package installed in .venv"
	$(BIN)/pytest

# pytest by its own name: `python -m pytest` would import the source folder instead of the installed package.
bench: $(BENCH)
	@echo "== bench: timing textclf_fast against nn.LSTM, ONNX Runtime and OpenVINO: some ten minutes"
	$(BIN)/pytest benchmarks -q --benchmark-disable-gc --benchmark-columns=median,rounds
	$(BIN)/python -m benchmarks.roofline
	$(BIN)/python -m benchmarks.plot

lint: $(TEST) $(LINT)
	@echo "== lint: ruff, mypy, clang-format"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP_SOURCES)

$(TORCH): constraints.txt
	@echo "== making a virtual environment in .venv and installing torch (the pin in constraints.txt) into it"
	$(PYTHON) -m venv .venv
	$(PIP) torch
	@touch $@

# build/lib* is where setuptools gathers the package: a module that was deleted since would be installed from there.
define INSTALL
	@echo "== compiling and installing textclf_fast with the [$(1)] extra"
	rm -rf build/lib*
	$(PIP) '.[$(1)]'
	@touch $@
endef

$(DEMO): $(TORCH) $(SOURCES)
	$(call INSTALL,report)

$(TEST): $(TORCH) $(SOURCES)
	$(call INSTALL,test)

$(BENCH): $(TORCH) $(SOURCES)
	$(call INSTALL,bench)

$(LINT): $(TORCH)
	@echo "== installing the linters"
	$(PIP) ruff mypy clang-format
	@touch $@

# make demo | test | compatibility | bench | report | lint | sanitize.  Each makes its own virtual environment in .venv, installs this folder into it, and can
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

.PHONY: help demo test compatibility bench report lint sanitize
help:
	@echo "make demo   train the classifier on real reviews, with nn.LSTM and with ours, and compare them"
	@echo "make test   install with the test extras and run the tests"
	@echo "make compatibility   run the tests that show how nn.LSTM and ours behave; write docs/compatibility.md"
	@echo "make bench  time ours against nn.LSTM, ONNX Runtime and OpenVINO; write docs/performance-ISA.md"
	@echo "make report   write docs/results.md and its picture from benchmarks/results, with the commands that measure them"
	@echo "make lint   ruff, mypy, clang-format"
	@echo "make sanitize   run the kernels' tests with AddressSanitizer and UndefinedBehaviorSanitizer"

demo: $(DEMO)
	@echo "== demo: training the same classifier with nn.LSTM and with textclf_fast"
	$(BIN)/textclf-fast demo

# A process for each core, of one thread; what is about threads asks for them.
test: $(TEST)
	@echo "== test: running the tests against the package installed in .venv"
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

compatibility: $(TEST)
	@echo "== compatibility: running the tests that show a behaviour, and writing docs/compatibility.md"
	$(BIN)/python tests/compatibility.py

# pytest by its own name: `python -m pytest` would import the source folder instead of the installed package.
bench: $(BENCH)
	@echo "== bench: timing textclf_fast against nn.LSTM, ONNX Runtime and OpenVINO: some sixteen minutes"
	$(BIN)/pytest benchmarks -q --benchmark-disable-gc --benchmark-columns=median,rounds
	$(BIN)/python -m benchmarks.roofline
	$(BIN)/python -m benchmarks.plot

# What was measured is read, not measured again: the page says by which commands it was.
report: $(DEMO)
	@echo "== report: writing docs/results.md"
	$(BIN)/python -m benchmarks.results_page

lint: $(TEST) $(LINT)
	@echo "== lint: ruff, mypy, clang-format"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP_SOURCES)

# A copy of the sources is built, so that the objects of the usual build stay; its libraries come before the installed
# ones on Python's path. Python itself knows nothing of the sanitizers: their libraries are loaded before it, and
# libstdc++ with them, whose exceptions they watch. What Python never frees is no leak of ours.
SANITIZED := build/sanitize
# -O0: vectors are read by memcpy then, and checked all the same; at -O1 the compiler takes four times as long.
SANITIZE_FLAGS := -O0 -g1 -fsanitize=address,undefined -fno-sanitize-recover=undefined
# test_error_over_all_sizes: every tile of rows and vectors, forward and backward.
SANITIZE_TESTS := tests/ops tests/text/test_host.py tests/text/test_words.py \
	$(addprefix tests/nn/test_lstm_numerics.py::test_,error_over_all_sizes bfloat16_error_over_all_sizes)
# Left out: what checks Python's side or errors of rounding, and most of many cases that go the same ways.  Chunks are
# taken at H = 33 and, in large steps, 150: more rows of W_hh's gradient than are summed at a time.  Of weights beyond
# the cache one case.
SANITIZE_SKIP := gradcheck or opcheck or the_cap_is_kept or error_against_float64 \
	or chunks_longer_than or (both_directions and (-7- or False)) or (150- and not larger) \
	or (large_weights and not (603 and two)) or (bfloat16_tiles and not -40-) or (test_lstm_teams and not D2-index) \
	or every_thread or (any_order and not dtype0-3)
# --capture=sys: a report goes to file descriptor 2, and would be lost with the aborted process if pytest held that back.
sanitize: $(TEST)
	@echo "== sanitize: compiling a copy with AddressSanitizer and UndefinedBehaviorSanitizer, and running the kernels' tests"
	mkdir -p $(SANITIZED)/source/build
	rm -rf $(SANITIZED)/package $(SANITIZED)/source/build/lib*
	find $(SANITIZED)/source -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
	cp -p --parents $(SOURCES) README.md LICENSE $(SANITIZED)/source
	CXX="$(CXX)" CXXFLAGS="$(CXXFLAGS) $(SANITIZE_FLAGS)" TEXTCLF_FAST_CUDA=0 \
		$(PIP) --no-deps --target $(SANITIZED)/package $(SANITIZED)/source
	LD_PRELOAD="$(foreach library,asan ubsan stdc++,$(shell $(CXX) -print-file-name=lib$(library).so))" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=$(CURDIR)/$(SANITIZED)/package \
		$(BIN)/pytest $(SANITIZE_TESTS) -q --capture=sys -k "not ($(SANITIZE_SKIP))"

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

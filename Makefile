# Everything sets itself up: Python 3.11 or newer, git and make are enough.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: help demo test test-slow test-all test-cluster lint docs bench clean
help:
	@echo "make demo      run a small study, minutes after the first set-up; ends with its tables and report"
	@echo "make test      the tests, a quarter of an hour on two cores"
	@echo "make test-slow the slow ones (real data from STUDY_DATA_DIR); make test-all: all of them"
	@echo "make test-cluster  ray up on hosts made of namespaces, one lost (root, sshd, rsync; STUDY=FILE for another)"
	@echo "make lint      formatting, types, law of imports"
	@echo "make docs      docs/cli.md again, from the command's own help"
	@echo "make bench     timings against named baselines, into results/benchmarks"
	@echo "make clean     remove the environment and the demo's results"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than Python 3.11: name a newer one with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/study run quick

# Side by side: much of a study's time is waiting, for processes to start, and in the slow tests to end.
SIDE := --dist loadgroup --no-loadscope-reorder
HOSTS := tests/flow/test_hosts.py

test: $(READY)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --durations 15 $(SIDE)

test-slow: $(READY)
	$(BIN)/python -m pytest -n 3 $(SIDE) -m slow

test-all: test test-slow

test-cluster: $(READY)
	STUDY=$${STUDY:-quick} $(BIN)/python -m pytest -m slow -s $(HOSTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# pythae serves as a baseline alone: it lies outside the environment, without its dependencies.
.venv/bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ pythae==0.1.2 imageio==2.38.1

docs: $(READY)
	$(BIN)/python -m docs.commands

bench: .venv/bench
	PYTHONPATH=.venv/bench $(BIN)/python -m benchmarks.run

clean:
	rm -rf .venv results/quick

# The only commands anyone needs; .ci/run calls `make check test` and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup train test check format bench gpu-test gpu-bench docs clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install rootflow with everything that its tests need

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

train: $(STAMP) ## train the default experiment: handwritten digits, offline, about ten seconds
	$(BIN)/rootflow train

test: $(STAMP) ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: $(STAMP) ## lint, formatting, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure rootflow against hand-written loops, and the peers that the extra bench installs
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/start_time.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/discovery.py

gpu-test: $(STAMP) ## run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

gpu-bench: $(STAMP) ## the same loops on a CUDA device
	$(BIN)/python benchmarks/overhead.py --device cuda

docs: $(STAMP) ## write docs/reference.md from the options and keys
	$(BIN)/python docs/make_reference.py

clean: ## remove what make made; runs/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist build

# Everything lives in .venv; a target makes it once, and again when pyproject.toml changes.
STUDY ?= mnist
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
# Two processes of tests side by side, each with whole files: much of a test is waiting.
TESTS := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# Wheels are large: a slow line is no error.
PIP := $(BIN)/python -m pip --disable-pip-version-check --timeout 180

.PHONY: help optimize test test-fast test-faults lint format types check bench bench-search bench-gpu clean
.DEFAULT_GOAL := help

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST) | awk -F': ' '{printf "  make %-12s %s\n", $$1, $$2}'

optimize: $(VENV)/.installed ## Search STUDY (mnist) with TRIALS (as it says) trials, then retrain the winner
	$(BIN)/hpo optimize --study $(STUDY) $(if $(TRIALS),--trials $(TRIALS))
	$(BIN)/hpo retrain-best --study $(STUDY)

test: $(VENV)/.installed-dev ## Run all tests
	$(TESTS)

test-fast: $(VENV)/.installed-dev ## Run the tests that are not marked slow
	$(TESTS) -m "not slow"

test-faults: $(VENV)/.installed-dev ## Run the tests that kill workers, stop servers and fill disks
	$(TESTS) tests/faults tests/engines tests/test_workers.py

lint: $(VENV)/.installed-dev ## Lint, and check the format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.installed-dev ## Check the types
	$(BIN)/mypy

check: test lint types ## All of it, as CI does

bench: $(VENV)/.installed-bench ## Measure hpo beside its peers, what takes minutes; numbers go to benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

bench-search: $(VENV)/.installed-bench ## Measure whole searches beside whole searches of peers, which takes hours
	$(BIN)/python -m benchmarks searches
	$(BIN)/python -m benchmarks mark

bench-gpu: $(VENV)/.installed-bench ## Measure rates and accuracy on a GPU; ends with 2 where there is none
	$(BIN)/python -m benchmarks rate --device cuda --precisions float32,bfloat16 --members 1,2,4,8,16,32,64
	$(BIN)/python -m benchmarks accuracy --device cuda --precisions float32,bfloat16

clean: ## Remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[dev,bench]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-dev

# `make run` and `make test` set up .venv by themselves on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help run test setup lint bench clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/core.stamp: pyproject.toml
	@echo "== setting up $(VENV) (about half a minute) =="
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -e .
	@touch $@

$(VENV)/test.stamp: $(VENV)/core.stamp
	@echo "== installing what the tests need (compilers for CUDA among it; no GPU is needed) =="
	@$(PIP) install -e ".[test]"
	@touch $@

$(VENV)/dev.stamp: $(VENV)/core.stamp
	@$(PIP) install -e ".[dev]"
	@touch $@

run: $(VENV)/core.stamp ## reconstruct the bundled event and print a summary
	@echo "== reconstructing the bundled event; the first run compiles the kernels (about two minutes) =="
	@$(BIN)/traccc-py run --sample --output out

setup: $(VENV)/dev.stamp ## everything for development

test: $(VENV)/test.stamp ## run all tests
	@$(BIN)/python -m pytest

lint: $(VENV)/dev.stamp ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(VENV)/core.stamp ## time the chain on the CPU, event of 5,000 muons
	@$(BIN)/python benchmarks/bench_chain.py

clean: ## remove the environment and outputs
	rm -rf $(VENV) out

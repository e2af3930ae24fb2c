# Everything starts here. Needs only make and Python >= 3.11; what else is needed goes into .venv.

PYTHON ?= $(firstword $(shell for one in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$one -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$one; done))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --quiet \
	--custom-compile-command "make lock" pyproject.toml
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: run test check docs bench faults simulation lock help

run: $(VENV)/embedded.stamp ## Start everything on this machine and print a key with a call to paste
	@exec $(BIN)/tollkeeper dev $(ARGS)

test: $(VENV)/dev.stamp ## Run every test, side by side (ARGS="tests/policies -x": some, one by one)
	@$(BIN)/python -m pytest $(or $(ARGS),--numprocesses auto)

check: docs ## Check style, format, types, who imports whom, and that the manual builds
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(VENV)/dev.stamp ## Build the manual, docs/, into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/embedded.stamp ## Measure the gateway against a plain proxy on this machine
	@$(BIN)/python loadtests/bench.py $(ARGS)

faults: $(VENV)/dev.stamp ## Hurt every component at every step, kill each 200 times, judge every call
	@$(BIN)/python tests/faults/run.py $(ARGS)

simulation: $(VENV)/dev.stamp ## Break everything in seeded order (ARGS="--seed 42 --steps 5000")
	@$(BIN)/python -m tests.simulation $(ARGS)

lock: $(VENV)/dev.stamp ## Choose dependencies anew from pyproject.toml and write requirements/
	@$(PIP) install uv
	@$(LOCK) --upgrade --extra embedded --group dev --output-file requirements/dev.txt
	@$(LOCK) --constraints requirements/dev.txt --extra embedded --group build \
		--output-file requirements/embedded.txt
	@$(LOCK) --constraints requirements/dev.txt --group build --output-file requirements/serve.txt

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Tollkeeper needs Python 3.11 or newer on the PATH." >&2; exit 1; }
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

# The stamps keep a second `make run` fast: nothing is installed while they are newer than the locks.
$(VENV)/embedded.stamp: requirements/embedded.txt pyproject.toml | $(BIN)/python
	@echo "Installing (a minute the first time) ..."
	@$(PIP) install --require-hashes --requirement requirements/embedded.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml | $(BIN)/python
	@echo "Installing with the development tools (a minute the first time) ..."
	@$(PIP) install --require-hashes --requirement requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(VENV)/embedded.stamp $@

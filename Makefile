# Everything is run from here; `make` alone lists it. Needs Python 3.11 or newer and nothing else.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# The first interpreter that is new enough; else python3, which then says in a sentence what is missing.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3.14 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$name" && exit; \
	done; echo python3)

PYTEST_ARGS ?= -n auto
SEED ?= 1
SECONDS ?= 60
CHAOS_ARGS ?=
BENCH_ARGS ?=
LOCK_ARGS ?=

BIN := .venv/bin
BOOTSTRAP := $(PYTHON) scripts/bootstrap.py
# The lists must not depend on whose machine compiled them.
COMPILE = env -u UV_FIND_LINKS -u UV_INDEX -u UV_EXTRA_INDEX_URL $(BIN)/uv --no-config pip compile -q --universal --python-version 3.11 --only-binary :all: \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(LOCK_ARGS)

.NOTPARALLEL:
.PHONY: help run test test-clients test-containers check lint fmt lock fuzz vendors chaos bench clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Serve the gateway here, with an embedded database and a sandbox that draws; Ctrl-C stops it
	@$(BOOTSTRAP) run
	@exec $(BIN)/darkroom serve

test: ## Run every test, those on a real Postgres and Redis included; PYTEST_ARGS narrows
	@$(BOOTSTRAP) dev
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint test ## What CI runs: format, lint, strict types, imports, tests

lint: ## The static half of check
	@$(BOOTSTRAP) dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

chaos: ## Shake a whole gateway with faults and judge it; SEED and SECONDS choose the run, CHAOS_ARGS adds to it
	@$(BOOTSTRAP) dev
	@$(BIN)/python -m tests.chaos --seed $(SEED) --seconds $(SECONDS) $(CHAOS_ARGS)

bench: ## Measure the gateway beside others that are installed here; BENCH_ARGS=--quick for a look
	@$(BOOTSTRAP) dev
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

fmt: ## Put the code into shape and repair what lint can repair
	@$(BOOTSTRAP) dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Compile requirements/ from pyproject.toml; LOCK_ARGS=--upgrade raises every version
	@$(BOOTSTRAP) dev
	$(COMPILE) --extra dev --group bootstrap pyproject.toml -o requirements/dev.txt
	$(COMPILE) -c requirements/dev.txt pyproject.toml -o requirements/runtime.txt
	$(COMPILE) -c requirements/dev.txt --group bootstrap -o requirements/bootstrap.txt
	$(COMPILE) -c requirements/dev.txt --group containers -o requirements/containers.txt
	$(COMPILE) --group clients -o requirements/clients.txt

test-containers: ## Check the container files with docker-compose (Debian's) and hadolint
	@$(BOOTSTRAP) dev
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/containers.txt
	@$(BIN)/python -m pytest tests/containers/with_tools.py

test-clients: ## Run other people's clients: Node's, frameworks, and vendors' shell snippets (Node 20, npm, curl, jq)
	@$(BOOTSTRAP) dev
	@$(BIN)/uv venv -q --allow-existing --python $(BIN)/python .venv-clients
	@$(BIN)/uv pip install -q --python .venv-clients/bin/python --require-hashes -r requirements/clients.txt
	@npm ci --silent --prefix tests/clients/node
	@$(BIN)/python -m pytest -m clients tests/clients $(CLIENTS_ARGS)

vendors: ## Start every simulated vendor, for config/simulated.yaml; Ctrl-C stops them
	@$(BOOTSTRAP) dev
	@exec $(BIN)/python -m tests.simulators.all $(VENDORS_ARGS)

fuzz: ## Drive the moves of jobs, and the HTTP APIs, at random for minutes; EXAMPLES=200 STEPS=50
	@$(BOOTSTRAP) dev
	@DARKROOM_FUZZ_EXAMPLES=$(or $(EXAMPLES),200) DARKROOM_FUZZ_STEPS=$(or $(STEPS),50) \
		$(BIN)/python -m pytest -p no:xdist --timeout=0 tests/jobs/test_moves_at_random.py tests/api/test_contract.py

clean: ## Remove the environment and the caches; keeps data/
	rm -rf .venv .venv-clients tests/clients/node/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

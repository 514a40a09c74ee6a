# Each target does whatever set-up it lacks. ARGS is passed on: make demo ARGS=--once
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Tests run side by side, each worker with a control plane of its own; much of their time is waiting.
WORKERS ?= 3

.PHONY: setup demo test test-all chaos bench lint lock clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "driftwatch needs Python 3.11 or newer; set PYTHON=python3.x")'
	@command -v git >/dev/null || { echo "driftwatch needs git on PATH" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	$(BIN)/driftwatch demo $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/driftwatch cluster build
	$(BIN)/driftwatch tools build
	$(BIN)/python -m tests.support.tools
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

test-all: test
	$(BIN)/python -m pytest -m slow

chaos: setup
	$(BIN)/driftwatch cluster build
	$(BIN)/python -m tests.chaos $(ARGS)

bench: setup
	$(BIN)/python -m benchmarks $(ARGS)

# The lock: every package with its hashes, no registry address. Needs uv on PATH.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --group dev -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV)

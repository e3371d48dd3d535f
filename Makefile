# Three commands: `make demo` runs the main job, `make test` the tests, `make check` the linters.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check install

demo: install
	$(BIN)/autointerp run --features 0:4096 --baseline neurons --out results/mine

test: install
	$(BIN)/pytest

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(BIN)/lint-imports

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("autointerp needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

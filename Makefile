# Every target sets up what it needs, and is safe to run again.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test smoke lint format bench docs clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("lengthwise needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/lengthwise demo

test: setup
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

smoke: setup
	rm -rf runs/smoke
	$(BIN)/lengthwise reproduce all --budget smoke --out runs/smoke

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/lengthwise bench

docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/sphinx-build -W -q docs docs/_build/html
	@echo docs/_build/html/index.html

clean:
	rm -rf .venv docs/_build .pytest_cache .ruff_cache .hypothesis

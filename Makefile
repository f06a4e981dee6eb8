# Every target sets up what it needs, and is safe to run again.
PYTHON ?= python3
BIN := .venv/bin

LOWEST := .venv-lowest/bin

.PHONY: setup demo test test-fast test-slow test-lowest smoke lint format bench docs clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("lengthwise needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/lengthwise demo

# A worker for each of so many cores; the tests of a file stay together, with what its fixtures trained.
WORKERS ?= 2

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=90

# Under a minute: without what trains, starts processes or takes a second; properties on ten examples, not fifty.
test-fast: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not trains and not slow" --hypothesis-profile=fast

test-slow: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m slow

# The lowest versions that pyproject.toml allows, with what touches other libraries most.
test-lowest: .venv-lowest/ready
	$(LOWEST)/python -m pytest tests/test_cli.py tests/test_streams.py tests/test_folder.py \
		tests/test_training.py tests/test_report.py tests/test_proof.py

.venv-lowest/ready: pyproject.toml constraints-lowest.txt
	test -x $(LOWEST)/python || $(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt torch
	$(LOWEST)/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt \
		-e . hypothesis pandas pyparsing pytest
	touch $@

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
	rm -rf .venv .venv-lowest docs/_build .pytest_cache .ruff_cache .hypothesis

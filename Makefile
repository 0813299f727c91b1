# Everything runs in one virtual environment, which make builds and keeps current.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-slow check format site bench clean

demo: $(READY)  ## the main job on the bundled model and tasks, offline
	$(BIN)/fmn run

test: $(READY)  ## the tests, without the slow ones
	$(BIN)/pytest --numprocesses 2 --dist loadfile --durations 25 -m "not slow"

test-slow: $(READY)  ## the slow tests: studies in processes, Ray, kill -9 of one of several processes
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m slow

check: $(READY)  ## style, types, and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/lint-imports --no-cache --config .importlinter-circles

format: $(READY)  ## put the code into its one form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

site: $(READY)  ## the docs as a site in site/; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)  ## against TRL and lm-eval; BENCH='--data-dir D --model M --write'; rows of their own: one module at a time
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	for name in whole_run scoring training; do $(BIN)/python -m benchmarks.$$name $(BENCH) || exit; done

clean:  ## remove the environment and all caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# torch first: with the pinned CPU build in place nothing asks for a CUDA one.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

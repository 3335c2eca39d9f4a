# Targets of the project. All but `make clean` first set up .venv: with uv where there is one, else with venv and pip.
# PYTHON names another interpreter to make it from, such as `make test PYTHON=python3.12`; it must be 3.11 or newer.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# The environment is compiled to bytecode when it is made; let our own code be, too.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install train test test-all test-browser smoke lint format lock wheel bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## set up .venv with the locked versions, and genai itself as it is in this folder

train: $(INSTALLED)  ## train a GAN on handwritten digits: a minute or two on two CPU cores
	@$(BIN)/genai train model=gan dataset=mnist
	@echo "To type genai as it stands here: source $(BIN)/activate"

test: $(INSTALLED)  ## the everyday tests, a few minutes
	$(PYTEST)

test-all: $(INSTALLED)  ## all tests, with the slow and the nightly ones
	$(PYTEST) -m "not browser"

test-browser: $(INSTALLED)  ## the tests that need Chromium or Chrome
	$(PYTEST) -m browser tests/report

smoke: $(INSTALLED)  ## every model, at full size, trains a few steps, samples and is evaluated from the command line
	$(PYTEST) -m "" tests/test_smoke.py

lint: $(INSTALLED)  ## style of the code
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(INSTALLED)  ## lay out the code and mend what can be mended by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock:  ## resolve requirements.lock anew (needs uv)
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-emit-index-url --group dev --custom-compile-command "make lock" \
		pyproject.toml --output-file requirements.lock

wheel: $(INSTALLED)  ## build dist/genai_cli-VERSION-py3-none-any.whl
	$(BIN)/python -m hatchling build --target wheel

bench: $(INSTALLED)  ## speed beside what one would run instead; results go to benchmarks/
	$(BIN)/python -m benchmarks

clean:  ## remove .venv, dist and caches, but no run of outputs/
	rm -rf $(VENV) dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# requirements.lock holds the version and the hashes of everything but genai itself.
$(INSTALLED): pyproject.toml requirements.lock
	@set -e; if command -v uv >/dev/null; then \
		echo "Setting up $(VENV) with uv; the first time fetches PyTorch, some gigabytes on Linux"; \
		test -x $(BIN)/python || uv venv $(addprefix --python=,$(PYTHON)) $(VENV); \
		uv pip install --python $(BIN)/python --compile-bytecode --requirement requirements.lock; \
		uv pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .; \
	else \
		echo "Setting up $(VENV) with pip; the first time fetches PyTorch, some gigabytes on Linux"; \
		$(or $(PYTHON),python3) -c "$$NEW_ENOUGH"; \
		test -x $(BIN)/pip || $(or $(PYTHON),python3) -m venv $(VENV); \
		$(BIN)/pip install --requirement requirements.lock; \
		$(BIN)/pip install --no-deps --no-build-isolation --editable .; \
	fi
	@touch $@

export NEW_ENOUGH := import sys; sys.version_info < (3, 11) and sys.exit("genai needs Python 3.11 or newer: add PYTHON=python3.12")

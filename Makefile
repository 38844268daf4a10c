# Every target makes its own environment first: a virtual environment in .venv with the versions of constraints.txt.
# Needed beforehand: make and Python 3.11 or newer with the venv module.

VENV ?= .venv
PYTHON ?=
BUDGET ?= 9000
ARGS ?=

# Nothing here needs a model hub. To fetch a model by its Hub id: make demo HF_HUB_OFFLINE=0 ARGS="--model ..."
export HF_HUB_OFFLINE ?= 1

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt
# A stamp is newer than the files below exactly when the environment was made from them.
RECIPE := pyproject.toml constraints.txt
FOR_DEMO := $(VENV)/.installed-demo
FOR_DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-landing test-all lint format generate docs-output bench train clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(FOR_DEMO) ## questions over examples/corpus, answered through LlamaIndex and LangChain; ARGS="--docs FOLDER --question ..."
	@$(BIN)/python examples/demo.py $(ARGS)

# Tests that measure time run first, by themselves; only their files are collected, and an exit status of 5 says that no
# test has the marks. The others run in one process per core, each with one torch thread.
define pytest
$(BIN)/python -m pytest -q -m "alone and ($(1))" $$(grep -rl --include="*.py" "mark\.alone" tests) || test $$? = 5
OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not alone and ($(1))" -n logical --dist loadscope
endef

test: $(FOR_DEV) ## run the tests that each change needs; ARGS="tests/core -k name" runs what it names
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@$(call pytest,not landing and not slow and not peers)
endif

test-landing: $(FOR_DEV) ## run the other tests that must pass before a change lands
	@$(call pytest,landing)

test-all: $(FOR_DEV) ## run all tests
	@$(call pytest,landing or not landing)

lint: $(FOR_DEV) ## ruff and mypy (strict on the packages)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(FOR_DEV) ## let ruff fix and format what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

generate: $(FOR_DEV) ## write the files derived from the settings; ARGS=--check only says which are out of date
	@$(BIN)/python -m scripts.generate $(ARGS)

docs-output: $(FOR_DEV) ## run the programs of README.md and docs/ and write what they print below them; ARGS="docs/rag.md"
	@$(BIN)/python -m scripts.page_outputs $(ARGS)

bench: $(FOR_DEMO) ## measure the engine against transformers' generate on the same weights
	@$(BIN)/python -m benchmarks.generate $(ARGS)

train: $(FOR_DEMO) ## train the embedded checkpoint again (BUDGET seconds in all; an interrupted run goes on)
	@$(BIN)/python -m training.train --budget $(BUDGET) --out training/runs/make --resume $(ARGS)

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist

# Modules are compiled when first imported (--no-compile): compiling everything that torch brings takes minutes.
$(FOR_DEMO): $(RECIPE) | $(BIN)/python
	@echo "Installing dgemma with LangChain and LlamaIndex into $(VENV) (torch is large; this takes a minute or more) ..."
	@$(PIP) --editable '.[all]'
	@touch $@

$(FOR_DEV): $(RECIPE) | $(BIN)/python
	@echo "Installing dgemma with its test and lint tools into $(VENV) (torch is large; this takes a minute or more) ..."
	@$(PIP) --editable '.[all,dev]'
	@touch $(FOR_DEMO) $@

# A python counts only if it runs, is new enough and can make environments (some systems split venv off).
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$("$$python" --version) ..."; \
	    exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo "No Python 3.11 or newer with the venv module was found (on Debian and Ubuntu: the package python3-venv)." >&2; \
	echo "If it is installed under another name: make PYTHON=/path/to/python ..." >&2; \
	exit 1

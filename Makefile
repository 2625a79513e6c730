# `make repro` and `make test` set everything up when run first; nothing but Python, make and git is needed.
.DEFAULT_GOAL := repro
.PHONY: install repro verify test test-all test-cluster check lock ui clean

PYTHON ?= python3
VENV := .venv
TASKS ?=
LOCKED ?=
CPU_TORCH ?= --torch-backend cpu
STAMP := $(VENV)/installed

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

install: $(STAMP)

$(STAMP): pyproject.toml
	@echo "installing about 2 GB, some minutes"
	$(PYTHON) -m venv $(VENV)
ifeq ($(strip $(LOCKED)),)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
else # LOCKED=1: the very files of requirements.lock; LOCKED=cpu: those of requirements-cpu.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements$(patsubst %,-%,$(filter cpu,$(LOCKED))).lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
	@$(VENV)/bin/python -m aimback.runtime.doctor # tells DVC whether there is git
	@touch $@

repro: $(STAMP) ## the pipeline as conf/ has it; TASKS=cannon_drag: that task for this run
	@python -m aimback.workflow.run $(if $(strip $(TASKS)),'task=[$(TASKS)]')

verify: $(STAMP) ## every output and cache object hashed again; names what is damaged and what mends it
	@python -m aimback.workflow.verify

PYTEST := pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test: $(STAMP) ## the tests of every day, as many files at a time as there are cores
	$(PYTEST) -m 'not slow'

test-all: $(STAMP) ## the slow ones too: whole pipelines, campaigns, programs as optimised as users have them
	$(PYTEST) -m 'not (slow and cluster)'

test-cluster: $(STAMP) ## real engines, started, killed and restarted; what is not installed is skipped by name
	pytest -m cluster

check: $(STAMP) ## style and types
	ruff check .
	ruff format --check .
	mypy

COMPILE := uv pip compile --quiet pyproject.toml --extra dev --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate

lock: $(STAMP) ## from pyproject.toml, one for every system, one for CI's: Linux on x86_64 with PyTorch's CPU build
	pip install --quiet --disable-pip-version-check uv
	$(COMPILE) --universal --output-file requirements.lock
	$(COMPILE) --constraint requirements.lock --python-platform x86_64-manylinux_2_28 $(CPU_TORCH) \
		--output-file requirements-cpu.lock

ui: $(STAMP) ## MLflow's UI on this machine, with a link to the routes side by side
	python -m aimback.workflow.ui

clean: ## what was installed and what tools cached; results stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build src/*.egg-info

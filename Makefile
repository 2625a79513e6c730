# `make repro` and `make test` set everything up when run first; nothing but Python, make and git is needed.
.DEFAULT_GOAL := repro
.PHONY: install repro contest test check ui clean

PYTHON ?= python3
VENV := .venv
TASKS ?=
STAMP := $(VENV)/installed

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@# A downloaded archive has no git; DVC wants to be told.
	@git -C . rev-parse --show-cdup 2>/dev/null | grep -q '^$$' || printf '[core]\n    no_scm = true\n' > .dvc/config.local
	@touch $@

repro: $(STAMP) ## the pipeline; TASKS=cannon_drag: that task for this run
ifeq ($(strip $(TASKS)),)
	@python -m pipelines.doctor
	dvc repro
else
	python -m pipelines.run 'task=[$(TASKS)]'
endif

contest: $(STAMP) ## the Neural-Adjoint benchmark; its size stands in benchmarks/neural_adjoint/params.yaml
	@cp .dvc/config.local benchmarks/neural_adjoint/.dvc/config.local 2>/dev/null || true
	@python -m pipelines.doctor benchmarks/neural_adjoint
	cd benchmarks/neural_adjoint && dvc repro

test: $(STAMP) ## all tests
	pytest

check: $(STAMP) ## style and types
	ruff check .
	ruff format --check .
	mypy

ui: $(STAMP) ## MLflow's UI on this machine, with a link to both routes side by side
	python -m pipelines.ui

clean: ## what was installed and what tools cached; results stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build src/*.egg-info

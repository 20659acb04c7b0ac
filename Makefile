# To start, run `make demo`. `make help` lists all targets.

# python3 if its version is supported, otherwise the first versioned one found. To choose: make setup PYTHON=python3.12
supported := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(supported)' 2>/dev/null && echo $$p && break; done)
# Extra arguments for pip, for example another index for the CPU build of PyTorch.
PIP_FLAGS ?=

# Number of parallel test processes; each runs one test file at a time, on one thread.
WORKERS ?= 2

# OpenMP threads busy-wait by default: next to other programs this makes small PyTorch steps twenty times slower.
export OMP_WAIT_POLICY ?= passive

venv := .venv/bin/python
stamp := .venv/installed

.PHONY: help setup test demo figures docs lab clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' Makefile

setup: $(stamp)  ## Create the environment .venv with the tested versions

$(stamp): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c '$(supported)' 2>/dev/null || { \
		echo "cryotwin_nb needs Python 3.11, 3.12 or 3.13, found: $$($(or $(PYTHON),python3) --version 2>&1)." \
		"Install one of them, or give its path: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) lacks the venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(venv) -c '$(supported)' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@echo "Installing the pinned versions into .venv; this takes a few minutes because of PyTorch."
	@$(venv) -m pip install --quiet --disable-pip-version-check --progress-bar off $(PIP_FLAGS) \
		--constraint constraints.txt --editable '.[notebooks,nglview,test,docs]'
	@touch $@

test: setup  ## Run the tests, including the notebooks, and the style and type checks
	$(venv) -m ruff check .
	$(venv) -m ruff format --check .
	$(venv) -m mypy
	OMP_NUM_THREADS=1 $(venv) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

demo: setup  ## Run the demo from simulated images to a pathway, into results/demo
	$(venv) -m cryotwin_nb demo --output results/demo --overwrite

figures: setup  ## Draw the figures of the paper into results/figures, those that are missing
	$(venv) -m cryotwin_nb figures --output results/figures

docs: setup  ## Build the documentation into docs/_build/html, without a network
	COLUMNS=100 $(venv) -m sphinx -W --keep-going -q -b html docs docs/_build/html

lab: setup  ## Open JupyterLab on the notebooks
	$(venv) -m jupyterlab notebooks

clean:  ## Remove the environment, the caches and the results
	rm -rf .venv results build docs/_build docs/_generated docs/notebooks *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

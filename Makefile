# Everything a newcomer needs: `make demo`. See `make help`.

# The system's python3 where it is new enough, else the first versioned one; or say which: make setup PYTHON=python3.12
supported := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(supported)' 2>/dev/null && echo $$p && break; done)
# More arguments for pip, for example another index for the CPU build of PyTorch.
PIP_FLAGS ?=

# Files of tests run side by side on so many processes, each with one thread.
WORKERS ?= 2

# OpenMP's threads spin while they wait: beside other programs that makes small steps of PyTorch twenty times slower.
export OMP_WAIT_POLICY ?= passive

venv := .venv/bin/python
stamp := .venv/installed

.PHONY: help setup test demo docs lab clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' Makefile

setup: $(stamp)  ## Create the environment .venv with the tested versions

$(stamp): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c '$(supported)' 2>/dev/null || { \
		echo "cryotwin_nb needs Python 3.11, 3.12 or 3.13, found: $$($(or $(PYTHON),python3) --version 2>&1)." \
		"Install one of them, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) lacks the venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(venv) -c '$(supported)' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@echo "Installing the pinned versions into .venv; PyTorch makes this take some minutes."
	@$(venv) -m pip install --quiet --disable-pip-version-check --progress-bar off $(PIP_FLAGS) \
		--constraint constraints.txt --editable '.[notebooks,test,docs]'
	@touch $@

test: setup  ## Run the tests, the notebooks included, and the style and type checks
	$(venv) -m ruff check .
	$(venv) -m ruff format --check .
	$(venv) -m mypy
	OMP_NUM_THREADS=1 $(venv) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

demo: setup  ## Images to pathway on the embedded data set, into results/demo
	$(venv) -m cryotwin_nb demo --output results/demo

docs: setup  ## Build the documentation into docs/_build/html, without a network
	COLUMNS=100 $(venv) -m sphinx -W --keep-going -q -b html docs docs/_build/html

lab: setup  ## Open JupyterLab on the notebooks
	$(venv) -m jupyterlab notebooks

clean:  ## Remove the environment, the caches and the results
	rm -rf .venv results build docs/_build docs/_generated docs/notebooks *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything a reader or a developer runs. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run full test fuzz faults check bench load lock clean

# The interpreter that .venv is made with: 3.11 or newer, for example `make setup PYTHON=python3.13`.
PYTHON ?= python3
# How packages get into .venv. On Linux a registry's torch brings several GB of CUDA libraries; uv installs the CPU build:
#   make setup INSTALL="uv pip install --torch-backend=cpu --python .venv/bin/python"
INSTALL ?= .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off
# Notebooks at a time, each of one thread; JOBS=1 gives the steadiest timings.
JOBS ?= 2
# Processes that the tests run in, each of one thread: one more than cores, since a test of the service waits for its server.
TEST_JOBS ?= 3
# Needed by `make lock` only.
UV ?= uv

# Tests and notebooks start hundreds of processes: without written bytecode each would compile hepipe anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
READY := .venv/.ready
INSTALL_LOG := .venv/install.log
TEST_LOG := .cache/pytest.log

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything that running and testing need (once)

# The stamp is newer than both files when .venv is what they ask for, so a second run does nothing here.
$(READY): pyproject.toml requirements.lock
	@command -v "$(PYTHON)" > /dev/null || { echo "setup: no $(PYTHON) here. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: hepipe needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.13" >&2; exit 1; }
	@echo "setup 1/3: .venv with $$($(PYTHON) --version)"
	@"$(PYTHON)" -m venv .venv || { echo "setup: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@total=$$(grep -c == requirements.lock); n=0; \
	echo "setup 2/3: up to $$total pinned packages, about two minutes with pip"; \
	PYTHONUNBUFFERED=1 $(INSTALL) -r requirements.lock 2> $(INSTALL_LOG) | while read -r word _; do \
	  case "$$word" in \
	    Collecting | Processing) n=$$((n + 1)); if ((n % 25 == 0)); then echo "           $$n of about $$total found"; fi ;; \
	    Installing) echo "           installing $$n" ;; \
	  esac; \
	done || { cat $(INSTALL_LOG) >&2; exit 1; }
	@echo "setup 3/3: hepipe itself"
	@$(INSTALL) --quiet --no-deps --editable . 2> $(INSTALL_LOG) || { cat $(INSTALL_LOG) >&2; exit 1; }
	@touch $@

run: setup ## Compare the schemes: the quick profile of all notebooks, then the table
	@$(BIN)/hepipe run --profile quick --jobs $(JOBS)

full: setup ## The same with the full profile, which is the one committed under results/full
	@$(BIN)/hepipe run --profile full --jobs $(JOBS)
	@$(BIN)/hepipe readme

# The report comes before pytest's closing line, which is repeated so that it stands last.
test: setup ## Run all tests; schemes/ and protocol/ need 90 % coverage
	@mkdir -p $(dir $(TEST_LOG)); status=0; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --cov --cov-report= 2>&1 | tee $(TEST_LOG) || status=$$?; \
	$(BIN)/coverage report --fail-under=90 || status=$$?; \
	tail -n 1 $(TEST_LOG); \
	exit $$status

fuzz: setup ## Fuzz every decoder of bytes from outside, 10^5 mutations each, and print what they did
	@PYTHONPATH=tests $(BIN)/python -m fuzz

faults: setup ## Inject every fault of the service 20 times and write the table in tests/faults/README.md
	@cd tests && OMP_NUM_THREADS=1 ../$(BIN)/python -m faults --times 20 --out faults/README.md

check: setup ## Lint and format of code and notebooks (ruff), types (mypy --strict)
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/ruff format --no-cache --check .
	@$(BIN)/mypy --strict src

bench: setup ## Scoring, depth and training side by side with plain phe and TenSEAL's tutorial way
	@$(BIN)/python benchmarks/scoring.py
	@$(BIN)/python benchmarks/depth.py
	@$(BIN)/python benchmarks/training.py

load: setup ## A server under load from 32 clients on this machine, into results/full/load (six minutes, quiet machine)
	@$(BIN)/python benchmarks/load.py

# torch's requirements are stated here, because those of the registry's build name CUDA packages. From 4.25 on, jsonschema
# builds a parser of IRIs for seconds whenever it is imported, as jupyter, nbformat and papermill do.
lock: ## Pin requirements.lock again from pyproject.toml (needs uv)
	@temporary=$$(mktemp -d); trap 'rm -rf "$$temporary"' EXIT; \
	printf '%s\n' '[[dependency-metadata]]' 'name = "torch"' 'version = "2.13.0"' \
	  'requires-dist = ["filelock", "fsspec>=0.8.5", "jinja2", "networkx>=2.5.1", "setuptools>=77.0.3", "sympy>=1.13.3", "typing-extensions>=4.10.0"]' > "$$temporary/uv.toml"; \
	printf '%s\n' 'torch==2.13.0' 'jsonschema<4.25' > "$$temporary/constraints.txt"; \
	$(UV) pip compile --quiet --config-file "$$temporary/uv.toml" --constraints "$$temporary/constraints.txt" \
	  --universal --python-version 3.11 --fork-strategy fewest --all-extras \
	  --no-emit-index-url --no-header --no-annotate --output-file "$$temporary/pins" pyproject.toml; \
	{ sed -n '/^#/p' requirements.lock; cat "$$temporary/pins"; } > "$$temporary/lock"; \
	cp "$$temporary/lock" requirements.lock

clean: ## Remove .venv, caches and the results of runs; data files and results/full stay
	@rm -rf .venv .cache .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist results/smoke results/quick
	@find src tests benchmarks notebooks -name __pycache__ -prune -exec rm -rf {} + 2> /dev/null || true
	@find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} + 2> /dev/null || true

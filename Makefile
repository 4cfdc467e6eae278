# Two commands do everything: `make search` and `make test`. Both first build .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.DEFAULT_GOAL := help
.PHONY: help search test test-slow lint types docs clean

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

search: $(VENV)/.demo ## learn a prompt for the embedded task; ARGS="search.seed=1" changes settings
	$(BIN)/cliptune search $(ARGS)

test: $(VENV)/.test ## run the tests (up to 10 minutes on 2 cores); ARGS="-k name" selects
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-slow: $(VENV)/.test ## run the tests that take longer
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow --timeout 1800 $(ARGS)

lint: $(VENV)/.test ## check style and format
	$(BIN)/ruff check --no-cache . && $(BIN)/ruff format --check .

types: $(VENV)/.test ## check types
	$(BIN)/mypy

docs: $(VENV)/.docs ## make the documentation's pages, with the API's reference, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## remove the environment and caches
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache

# A stamp is newer than what it was installed from.
$(VENV)/.python:
	@echo "Setting up $(VENV) (once, a minute or two and 2.1 GB)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; ok = (3, 11) <= v <= (3, 12); \
		sys.exit(None if ok else f"cliptune needs Python 3.11 or 3.12, found {v[0]}.{v[1]}: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	@$(PIP) install -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@$(PIP) install -c constraints.txt -e '.[demo,report,sweep,test]'
	@touch $@

$(VENV)/.docs: $(VENV)/.test
	@$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Only the installation may use a network.
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help demo space test lint format

help:  ## Show the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## Recognise and retrieve with the default checkpoint; pictures go to outputs/
	$(BIN)/python demo.py

space: $(VENV)/.installed-space  ## Serve the Space on http://127.0.0.1:7860 (both tasks in a browser)
	$(BIN)/python space/app.py

test: $(VENV)/.installed-dev  ## Run the quick tests (more: .venv/bin/pytest -m slow)
	$(BIN)/pytest

lint: $(VENV)/.installed-dev  ## Check rules and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.installed-dev  ## Apply formatting and safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# A stamp is written only after a complete installation, so an interrupted one is taken up again.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-space: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[space]'
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

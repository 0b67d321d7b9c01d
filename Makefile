# What this project does for whoever holds only a Python 3.11 with pip: `make demo`, `make test`.
# The first call installs everything into .venv; later calls find it there.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A worker for each core, up to four: each needs some 2 GB. `make test PYTEST_ARGS='-n0 -k solver'` runs in one process.
PYTEST_ARGS ?=

.PHONY: demo test lint format install clean

demo: install
	$(BIN)/acezero demo --overwrite

test: install
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(STAMP)

# Some systems ship Python without ensurepip; the pip that is there then fills the environment from outside.
# torch comes first and by its version, so that nothing else decides which build is taken.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || $(PYTHON) -m venv --clear --without-pip $(VENV)
	$(BIN)/python -m pip --version || $(PYTHON) -m pip --python $(BIN)/python install pip
	$(BIN)/python -m pip install -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo_output .pytest_cache .mypy_cache .ruff_cache .hypothesis

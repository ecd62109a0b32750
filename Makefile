PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo check test notebooks docs clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/pyro-vae fit digit-counts --likelihood "Binomial(total_count=16)"

# Bytecode is kept whatever the environment says, so that processes that tests start, and the next
# run, compile only what has changed since, and rewrite its assertions.
check test: export PYTHONDONTWRITEBYTECODE =
check test: export PYTHONPYCACHEPREFIX = $(abspath $(VENV)/bytecode)

# Lint and types take seconds: tests begin where both have passed.
define lint_and_types
$(BIN)/ruff check .
$(BIN)/ruff format --check .
$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
endef

# While you work: the tests that are fast, which are those marked neither slow nor process.
check: install
	$(lint_and_types)
	$(BIN)/python -m pytest --dist worksteal --numprocesses 2 -m "not slow and not process" tests

# Before you hand something in: all tests and doctests, on all cores.
test: install
	$(lint_and_types)
	$(BIN)/python -m pytest --dist worksteal --numprocesses auto

# Run the notebooks anew, and write their outputs, the list of the claims and its pictures.
notebooks: install
	$(BIN)/python tests/test_notebook.py
	$(BIN)/python tests/test_claims.py

# The site, into docs/build: offline, and a warning is an error.
docs: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/build

clean:
	rm -rf docs/build docs/results docs/course docs/reference/generated .venv* build *.egg-info

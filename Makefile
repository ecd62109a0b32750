PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo check test docs clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/pyro-vae fit digit-counts --likelihood "Binomial(total_count=16)"

# While you work, under 90 seconds on two cores: lint, then types beside the tests that are fast,
# which are those marked neither slow nor process. Bytecode is kept whatever the environment says,
# so that only what has changed since the last time is compiled, and its assertions rewritten.
check: export PYTHONDONTWRITEBYTECODE =
check: export PYTHONPYCACHEPREFIX = $(abspath $(VENV)/bytecode)
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright & types=$$!; \
	$(BIN)/python -m pytest tests --numprocesses 2 --dist worksteal -m "not slow and not process"; tests=$$?; \
	wait $$types && exit $$tests

# Before you hand something in: lint, types, and all tests and doctests, on all cores.
test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# The site, into docs/build: offline, and a warning is an error.
docs: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/build

clean:
	rm -rf docs/build docs/results docs/reference/generated .venv* build *.egg-info

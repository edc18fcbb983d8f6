# One command each on a fresh machine: python3 >= 3.11, make and PyPI.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/quickstart
BYTES ?= 10000
MINUTES ?= 20
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
# Most of the quick tests is compilation, which takes less time like this;
# the slow ones hold the same laws for what XLA compiles by default.
QUICK := XLA_FLAGS=--xla_backend_optimization_level=0

.PHONY: run study study-small budget test test-slow test-all test-matrix fuzz format clean

run: $(VENV)/installed  ## Train, compress, pack, measure and report.
	$(BIN)/python main.py --config=configs/quickstart.py --workdir=$(WORKDIR)

study: $(VENV)/installed  ## The whole plan on Fashion-MNIST: hours.
	$(BIN)/python main.py --config=configs/study.py --workdir=runs/study

study-small: $(VENV)/installed  ## The same plan on digits: minutes.
	$(BIN)/python main.py --config=configs/study.py:small --workdir=runs/study-small

budget: $(VENV)/installed  ## The best network in BYTES on Fashion-MNIST: hours.
	$(BIN)/python main.py --config=configs/budget.py --config.budget.bytes=$(BYTES) --workdir=runs/budget-$(BYTES)

test: $(VENV)/installed-test  ## The quick gate: format, lint, types, tests.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(QUICK) $(BIN)/python -m pytest $(PARALLEL) -m 'not slow'

test-slow: $(VENV)/installed-test  ## Every config, kills, databases, devices.
	$(BIN)/python -m pytest $(PARALLEL) -m slow $(TESTS)

test-all: test test-slow

test-matrix:  ## Types and quick tests on other Pythons and lowest versions.
	$(QUICK) $(PYTHON) -m tests.matrix $(TESTS)

fuzz: $(VENV)/installed-test  ## Look for hostile packed files; Linux.
	$(BIN)/python -m tests.fuzz --minutes=$(MINUTES)

format: $(VENV)/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venv-matrix runs

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-test: $(VENV)/installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@

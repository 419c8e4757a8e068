# `make demo`: set up and run the main job on what the package ships. `make test`: set up and run the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint bench clean

demo: $(STAMP)
	$(BIN)/neuralannot demo --out demo_out

test: $(STAMP) lint
	$(BIN)/python -m pytest -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A quarter of an hour on two cores; `make bench BENCH="mesh --quick"` tries one subject on tiny sizes.
BENCH ?= all
bench: $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .[bench]
	$(BIN)/python -m benchmarks $(BENCH)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .[test]
	touch $@

clean:
	rm -rf $(VENV) demo_out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

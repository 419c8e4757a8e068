# `make demo`: set up and run the main job on what the package ships. `make test`: set up and run the tests.
# `make docs`: the docs site, into site/.
# `make studio`: from nothing to a trained annotator, its annotations and their errors, in 20 minutes on two cores.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo studio test lint bench docs clean

demo: $(STAMP)
	$(BIN)/neuralannot demo --out demo_out

# `make studio STUDIO="--layout mscoco --model flame"` shows another of the runs.
STUDIO ?=
studio: $(STAMP)
	$(BIN)/python -m neuralannot.showcase studio_out $(STUDIO)

test: $(STAMP) lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A quarter of an hour on two cores; `make bench BENCH="mesh --quick"` tries one subject on tiny sizes.
BENCH ?= all
bench: $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .[bench]
	$(BIN)/python -m benchmarks $(BENCH)

# The docs site, into site/: warnings are errors, nothing in it is loaded from elsewhere. Read it with
# `python3 -m http.server --bind 127.0.0.1 --directory site`; the search needs that much.
docs: $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .[docs]
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python tools/site/check.py site

$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .[test]
	touch $@

clean:
	rm -rf $(VENV) demo_out studio_out site build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

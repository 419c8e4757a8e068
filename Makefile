# `make demo`: set up and run the main job on what the package ships. `make test`: set up, ruff, mypy and the quick
# tests, under 8 minutes on two cores. `make test-slow`: the tests marked slow. `make test-all`: both.
# `make docs`: the docs site, into site/.
# `make studio`: from nothing to a trained annotator, its annotations and their errors, in 20 minutes on two cores.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo studio test test-slow test-all lint hooks coverage names bench docs clean

demo: $(STAMP)
	$(BIN)/neuralannot demo --out demo_out

# `make studio STUDIO="--layout mscoco --model flame"` shows another of the runs.
STUDIO ?=
studio: $(STAMP)
	$(BIN)/python -m neuralannot.showcase studio_out $(STUDIO)

PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

test: $(STAMP) lint
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)
	$(PYTEST) -m slow

test-all: test test-slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What a commit is checked for (.pre-commit-config.yaml), on all files.
hooks: $(STAMP)
	$(BIN)/pre-commit run --all-files

# Which lines and branches all tests reach, in processes that they start too; fails below the floor in pyproject.toml.
coverage: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist worksteal
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

# The public names and signatures on file, written anew: the diff is the change of the interface.
names: $(STAMP)
	$(BIN)/python tests/public_names.py

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
	rm -rf $(VENV) demo_out studio_out site build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

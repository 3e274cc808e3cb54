# `make demo` and `make test` need git, make and a Python 3.10 to 3.13 to be found (on the path,
# through pyenv, or through uv, which fetches one); they set up .venv/ themselves, with the newest
# or with PYTHON (`make test PYTHON=3.12`); VENV is another folder for it.

VENV := .venv
PYTHON :=
BIN := $(VENV)/bin
READY := $(VENV)/.ready$(subst /,-,$(PYTHON))

# What has to be the same on every stack: Lava and SLAYER against ours, and files.
EXACT := tests/simulate tests/netfile tests/modelfile tests/models tests/engines tests/export \
    tests/experiments/test_verify.py tests/test_lava_repairs.py tests/test_stacks.py

.PHONY: help setup demo check test test-docs docs exactness test-lowest properties fuzz kills lint format \
    constraints bench release clean
help:
	@echo "make demo    train, export, run, verify, price and report on a sparse network (minutes)"
	@echo "make check   check style and types, run the fast tests: under a minute"
	@echo "make test    check style and types, run all tests; PYTHON=3.12 for that version"
	@echo "make test-docs    run every command and snippet of README and docs, and the notebooks"
	@echo "make docs    build the site into build/site/"
	@echo "make exactness    the tests that compare with Lava and SLAYER, and those of files"
	@echo "make properties    property tests with other examples; ONLY=folder, ROUNDS=number"
	@echo "make fuzz    damaged and forged files; FORMATS=names, MUTANTS=number, SECONDS=s, SEED=number"
	@echo "make kills   kill commands at random places, then continue; KILLS=number, SEED=number"
	@echo "make test-lowest PYTHON=3.11    all tests with the lowest versions allowed; ONLY=folder"
	@echo "make bench   measure (Python 3.11 or later); ONLY=prefix runs benchmarks named so"
	@echo "make setup   create .venv/ with exact versions; PYTHON=3.12 for that version"
	@echo "make constraints    renew those versions, with uv"
	@echo "make release build sdist and wheel into dist/ and try them in empty environments"
	@echo "make lint    check style and types;  make format  rewrites style"
	@echo "make clean   remove what was built, .venv/ and runs/ excepted"

setup: $(READY)

$(READY): pyproject.toml constraints.txt tools/setup.sh
	VENV="$(VENV)" PYTHON="$(PYTHON)" sh tools/setup.sh
	@touch $(READY)
	@echo "done: source $(VENV)/bin/activate puts esl on the path"

constraints:
	UV_CUSTOM_COMPILE_COMMAND="make constraints" uv pip compile --quiet --universal --upgrade \
	    --python-version 3.10 --all-extras --no-annotate pyproject.toml -o constraints.txt

demo: $(READY)
	$(BIN)/esl demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two workers on one thread each: torch and numba would otherwise fight for the cores.
check: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow"

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --cov=esl_lava

test-docs: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --docs --nbmake tests/documentation notebooks

docs: $(READY)
	$(BIN)/python tools/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

release: $(READY)
	VENV="$(VENV)" sh tools/release.sh

exactness: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal $(EXACT)

# `make test` draws the same examples always. This draws others, and many; what it finds it keeps
# in .hypothesis/ and tries again first, until it is mended.
properties: $(READY)
	for round in $$(seq $(or $(ROUNDS),1)); do \
	    OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m hypothesis \
	        --hypothesis-profile fuzz $(or $(ONLY),tests) || exit 1; \
	done

# The files of failures are kept in build/fuzz/, each with the command that repeats it.
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(FORMATS) --mutants $(or $(MUTANTS),1000) \
	    --seconds $(or $(SECONDS),inf) --seed $(or $(SEED),1)

kills: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.kills --kills $(or $(KILLS),100) --seed $(or $(SEED),1)

# In an environment of its own, build/lowest/.
test-lowest: $(READY)
	VENV="$(VENV)" sh tools/lowest.sh
	OMP_NUM_THREADS=1 build/lowest/bin/python -m pytest -n 2 --dist worksteal $(or $(ONLY),tests)

bench: $(READY)
	EXTRAS=dev,bench VENV="$(VENV)" sh tools/setup.sh
	$(BIN)/python -m tests.benchmarks $(ONLY)

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

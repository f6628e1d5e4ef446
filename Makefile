# Two commands: `make quickstart` and `make test`. Each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready-$(shell cat requirements/cpu.txt pyproject.toml | cksum | cut -d' ' -f1)
RECIPES := jobs/recipes
SHELL := bash -o pipefail
LANE = 2>&1 | sed --unbuffered 's/^/$@: /'

.PHONY: quickstart install test test-ray test-others test-fast test-nightly test-gpu bench bench-gpu lint lock clean

quickstart: $(READY)  ## the main job on an embedded default
	$(BIN)/python jobs/quickstart.py

install: $(READY)  ## only set up .venv

$(READY):
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --no-deps -r requirements/cpu.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	rm -f .venv/.ready-* && touch $@

test: $(READY)  ## everything that runs without a GPU, in two lanes: starting processes keeps one CPU busy, not two
	$(MAKE) --no-print-directory --keep-going --jobs=2 test-ray test-others

test-ray: $(READY)  ## one lane of `make test`: the tests of jobs on Ray
	$(BIN)/python -m pytest -m "not nightly" tests/ray $(LANE)

test-others: $(READY)  ## the other lane: the unit tier, and real models and engines
	$(BIN)/python -m pytest -m "not nightly" tests/unit tests/real $(LANE)

test-fast: $(READY)  ## the unit tier: no Ray, no real model
	$(BIN)/python -m pytest -m "not nightly" tests/unit

test-nightly: $(READY)  ## what takes too long for every change: kills at random moments, lost nodes, faults of S3
	$(BIN)/python -m pytest -m nightly -rP

test-gpu: $(READY)  ## on a machine with a GPU and its own vllm
	$(BIN)/python -m pytest -m gpu tests/gpu

bench: $(READY)  ## speed on this machine, beside its peers and limits
	benchmarks/run.sh

bench-gpu: $(READY)
	$(BIN)/python benchmarks/gpu_throughput.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock:  ## resolve requirements/cpu.in into pinned requirements/cpu.txt
	requirements/lock.sh

clean:
	rm -rf .venv quickstart

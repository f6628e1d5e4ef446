# Two commands: `make quickstart` and `make test`. Each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready-$(shell cat requirements/cpu.txt pyproject.toml | cksum | cut -d' ' -f1)
DOCS_READY := .venv-docs/.ready-$(shell cksum <requirements/docs.txt | cut -d' ' -f1)

SHELL := bash
.SHELLFLAGS := -o pipefail -c
LANE = 2>&1 | sed --unbuffered 's/^/$@: /'

.PHONY: quickstart install browser test test-ray test-others test-fast test-nightly test-gpu bench bench-gpu docs schemas lint lock clean

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

browser:  ## a Chromium for tests/real/test_report_page.py, from Debian's packages if there is none
	@command -v chromium-headless-shell || command -v chromium || command -v google-chrome || \
	{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium-headless-shell; } || \
	echo "no browser, and none could be installed: install Chromium, or set DAVIR_TEST_BROWSER=none to leave its tests out"

test-others: $(READY) browser  ## the other lane: the unit tier, and real models and engines
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

schemas: $(READY)  ## docs/records.md and docs/schemas/ from the code
	$(BIN)/python docs/records.py

docs: $(DOCS_READY)  ## the documents as a site in site/; fails on a broken link
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

$(DOCS_READY):
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --no-deps -r requirements/docs.txt
	rm -f .venv-docs/.ready-* && touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock:  ## resolve requirements/cpu.in into pinned requirements/cpu.txt
	requirements/lock.sh

clean:
	rm -rf .venv .venv-docs site quickstart

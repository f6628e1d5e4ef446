#!/usr/bin/env bash
# Every benchmark that this machine can run, one after the other; `make bench` calls it. Takes about half an hour on two cores.
#
#   MODEL   a model folder                  (the quickstart's, which is made if it is not there)
#   CORPUS  a folder of Alpaca's Parquet    (../shared/data/alpaca-5k)
#   PAIRS   preference pairs in Parquet     (a file of ../shared/data/hh-helpful)
set -euo pipefail
cd "$(dirname "$0")/.."
model=${MODEL:-quickstart/models/smollm2-135m-instruct}
corpus=${CORPUS:-../shared/data/alpaca-5k}
if [ ! -d "$model" ]; then
    PYTHONPATH=jobs .venv/bin/python -c 'import pathlib, prepare_quickstart.model as m; m.prepare_model(pathlib.Path("quickstart"))'
fi
.venv/bin/pip install --quiet --no-deps -r requirements/bench.txt
.venv/bin/python benchmarks/engine_speed.py --model "$model" --corpus "$corpus" --vllm
.venv/bin/python benchmarks/pipeline_speed.py --model "$model" --corpus "$corpus" --out benchmarks/pipeline_speed.json
.venv/bin/python benchmarks/dpo_frozen_logps.py --model "$model" --corpus "${PAIRS:-../shared/data/hh-helpful/train-00000*}" --out benchmarks/dpo_frozen_logps.json

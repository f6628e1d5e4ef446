#!/usr/bin/env bash
# What a GPU has to show, in five calls of less than ten minutes, each step with a limit and its output in a file:
#
#   bash benchmarks/on_a_gpu.sh correct|speed|job|switch|start OUT
#
#   correct  tests/gpu, and what rounding does to DavIR on 1,000 rows (both engines)
#   speed    tokens a second of all engines, and how much of the engine's speed the pipeline keeps
#   job      the whole job on 3,750 rows, from a training to a training, three times from nothing
#   switch   whether an engine that goes over to another model gives that model's numbers
#   start    where the seconds of an engine's start go, and what the second model of a run takes
#
#   PYTHON   the interpreter                     (.venv/bin/python)
#   MODEL    a folder with SmolLM2-135M-Instruct (quickstart/models/smollm2-135m-instruct)
#   CORPUS   a folder of Alpaca's Parquet        (../shared/data/alpaca-5k)
#   TINY=1   everything on a CPU in minutes, to see that it runs; its figures mean nothing
set -uo pipefail
cd "$(dirname "$0")/.."
part=$1 out=$(mkdir -p "$2" && cd "$2" && pwd) tiny=${TINY:-}
python=${PYTHON:-.venv/bin/python} model=${MODEL:-quickstart/models/smollm2-135m-instruct}
corpus=$(cd "${CORPUS:-../shared/data/alpaca-5k}" && pwd)
if [ -n "$tiny" ]; then device=cpu noisy=8 rows=8 share=1.0 times="1" most=400; else device=cuda noisy=1000 rows=3750 share=0.06 times="1 2 3" most=180; fi
export DAVIR_GPU_MODEL=$model PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$PWD

run() { # NAME SECONDS COMMAND...: its output in OUT/NAME.txt, its end in OUT/ends.txt
    local name=$1 limit=$2 started=$SECONDS; shift 2
    timeout "$limit" "$@" > "$out/$name.txt" 2>&1
    echo "$name: exit code $?, $((SECONDS - started)) s" | tee -a "$out/ends.txt"
}

correct() {
    mkdir -p "$out/data" && ln -sfn "$corpus" "$out/data/alpaca-5k"
    run tests 240 "$python" -m pytest -m gpu tests/gpu -rP -p no:cacheprovider --deselect tests/gpu/test_switching.py
    for engine in transformers vllm; do
        run "noise-$engine" 150 "$python" -m benchmarks.number_noise --model "$model" --data "$out/data" --engine "$engine" \
            --device "$device" --rows "$noisy" --dtypes bfloat16 --out "$out/noise-$engine"
    done
}

speed() {
    run throughput 420 "$python" benchmarks/gpu_throughput.py --tokenizer "$model" ${tiny:+--tiny}
    cp benchmarks/gpu_throughput.json "$out/" 2> /dev/null
    for engine in transformers vllm; do
        run "pipeline-$engine" 80 "$python" benchmarks/pipeline_speed.py --model "$model" --corpus "$corpus" \
            --engine "$engine" --rows "$rows"
    done
}

job() {
    cat > "$out/job.yaml" <<X
corpus: {paths: "$corpus/*.parquet", limit: $rows}
models: {base: "$(cd "$model" && pwd)"}
reference: {fit: whole, train: {zero_stage: 2, per_device_train_batch_size: 8, num_train_epochs: 1}}
select: [{type: fraction, fraction: $share}]
train: {objective: sft, zero_stage: 2}
X
    for time in $times; do
        run "job-$time" "$most" "$python" -m davir_ray.cli run "$out/job.yaml" --set "store=$out/$time/store" --set "output=$out/$time/runs"
    done
}

switch() {
    run switching 540 "$python" -m pytest -m gpu tests/gpu/test_switching.py -v -s -p no:cacheprovider
}

start() {
    run start-transformers 60 "$python" -m benchmarks.second_model --model "$model" --device "$device" --rounds 1 \
        --engines transformers --out "$out/start-transformers.json"
    for how in "" --eager; do
        run "start-vllm$how" 260 "$python" -m benchmarks.second_model --model "$model" --device "$device" --rounds 1 \
            --engines vllm $how --out "$out/start-vllm$how.json"
    done
}

: > "$out/ends.txt"
"$part"

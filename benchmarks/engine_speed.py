"""python benchmarks/engine_speed.py --model DIR [--corpus DIR] [--rows 192] [--repeats 3] [--vllm]

Score the same rows with the transformers engine, a plain sketch, lm-eval's Hugging Face backend and vLLM, in turn,
and set their speed against what this machine's matrix product can do. Needs requirements/bench.txt. Prints a
table, and writes benchmarks/engine_speed.json. With OMP_NUM_THREADS=1 it counts CPU seconds, which other programs
on the machine disturb much less than the time on the clock.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from davir_ray.logprobs.engine import Engine, TokenSequence  # noqa: E402
from davir_ray.logprobs.hf.engine import TransformersEngine  # noqa: E402

LM_EVAL_BATCH_SIZES = (1, 4, 8, 16)
SKETCH_TOKENS = (512, 1024)
Score = Callable[[Sequence[TokenSequence]], list[float]]
"""Sequences to their losses: nats, summed over the scored tokens."""


def now() -> float:
    """Return seconds: of this process on its CPU where it has one thread, else of the clock."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


@dataclass(frozen=True)
class Work:
    """What has to be computed at the least, were nothing shared and nothing wasted."""

    rows: int
    tokens: int
    scored: int
    gflop: float


def read_rows(corpus: Path, model: str, count: int) -> list[TokenSequence]:
    """Render the first rows with an output by the model's chat template; output and end token are scored."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    sequences: list[TokenSequence] = []
    for row in (row for file in sorted(corpus.glob("*.parquet")) for row in pq.read_table(file).to_pylist()):
        if not row["output"]:
            continue
        question = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
        message = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        after = tokenizer(row["output"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        scored = np.arange(len(before) + len(after)) >= len(before)
        sequences.append(TokenSequence(np.array(before + after, dtype=np.int32), scored))
        if len(sequences) == count:
            break
    return sequences


def measure_work(model: PreTrainedModel, sequences: Sequence[TokenSequence]) -> Work:
    """Count 2 x body parameters a token and 2 x head parameters a scored token."""
    head = model.get_output_embeddings().weight.numel()
    embeddings = cast(torch.Tensor, model.get_input_embeddings().weight)
    tied = embeddings is model.get_output_embeddings().weight
    body = sum(p.numel() for p in model.parameters()) - head - (0 if tied else embeddings.numel())
    tokens = sum(len(sequence.ids) for sequence in sequences)
    scored = sum(int(sequence.scored.sum()) for sequence in sequences)
    return Work(len(sequences), tokens, scored, 2 * (body * tokens + head * scored) / 1e9)


def matmul_peak(model: PreTrainedModel, seconds: float = 4.0) -> float:
    """Return the best float32 GFLOP/s of this model's body shapes at several batch sizes."""
    shapes = sorted({(p.shape[1], p.shape[0]) for n, p in model.named_parameters() if p.ndim == 2})
    shapes = [shape for shape in shapes if max(shape) < 20_000]
    tries = [(rows, *shape) for shape in shapes for rows in (512, 768, 1024, 2048)]
    return max(_gflops(*sizes, seconds=seconds / len(tries)) for sizes in tries)


def _gflops(rows: int, inputs: int, outputs: int, seconds: float) -> float:
    left, right = torch.randn(rows, inputs), torch.randn(outputs, inputs)
    result = torch.empty(rows, outputs)
    best, end = 1e9, now() + seconds
    while now() < end:
        start = now()
        torch.mm(left, right.t(), out=result)
        best = min(best, now() - start)
    return 2 * rows * inputs * outputs / best / 1e9


def by_engine(engine: Engine) -> Score:
    """Score by one of our engines."""
    return lambda sequences: [-float(row.astype(np.float64).sum()) for row in engine.logprobs(sequences)]


def by_sketch(model: PreTrainedModel, batch_tokens: int) -> Score:
    """Score as a careful script would: sorted by length, padded, the head on scored positions only."""

    def score(sequences: Sequence[TokenSequence]) -> list[float]:
        losses = [0.0] * len(sequences)
        for members in _padded_batches(sequences, batch_tokens):
            for member, loss in zip(members, _sketch(model, [sequences[i] for i in members]), strict=True):
                losses[member] = loss
        return losses

    return score


def _padded_batches(sequences: Sequence[TokenSequence], batch_tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in sorted(range(len(sequences)), key=lambda i: -len(sequences[i].ids)):
        if batch and (len(batch) + 1) * len(sequences[batch[0]].ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    yield batch


def _sketch(model: PreTrainedModel, sequences: list[TokenSequence]) -> list[float]:
    shape = (len(sequences), max(len(sequence.ids) for sequence in sequences))
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    scored = torch.zeros(shape, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        length = len(sequence.ids)
        ids[row, :length], mask[row, :length] = torch.from_numpy(sequence.ids), 1
        scored[row, : length - 1] = torch.from_numpy(sequence.scored[1:])
    ids, mask, scored = (one.to(model.device) for one in (ids, mask, scored))
    with torch.inference_mode():
        hidden = model.base_model(ids, attention_mask=mask, use_cache=False).last_hidden_state[scored]
        logprobs = model.get_output_embeddings()(hidden).float().log_softmax(-1)
        chosen = logprobs.gather(1, ids.roll(-1, 1)[scored][:, None])[:, 0].double()
    return [-float(part.sum()) for part in chosen.split(scored.sum(1).tolist())]


def by_lm_eval(model: PreTrainedModel, tokenizer: Any, batch_size: int) -> Score:
    """Score by lm-eval's Hugging Face backend, given token ids."""
    from lm_eval.models.huggingface import HFLM

    backend = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device=str(model.device))
    return lambda some: [
        -loss for loss, _ in backend._loglikelihood_tokens(lm_eval_requests(some), disable_tqdm=True)
    ]


def lm_eval_requests(
    sequences: Sequence[TokenSequence],
) -> list[tuple[tuple[str, str], list[int], list[int]]]:
    """Put sequences as lm-eval's backends take them: the prompt's tokens and the scored ones at the end."""
    requests = []
    for index, sequence in enumerate(sequences):
        first, ids = int(sequence.scored.argmax()), sequence.ids.tolist()
        requests.append(((str(index), ""), ids[:first], ids[first:]))
    return requests


def backends(model: PreTrainedModel, path: str, with_vllm: bool, longest: int) -> dict[str, Score]:
    """Name everything that is compared."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    found: dict[str, Score] = {"davir transformers": by_engine(TransformersEngine(path))}
    found |= {f"sketch, {tokens} tokens": by_sketch(model, tokens) for tokens in SKETCH_TOKENS}
    found |= {f"lm-eval, batch {size}": by_lm_eval(model, tokenizer, size) for size in LM_EVAL_BATCH_SIZES}
    if with_vllm:
        from davir_ray.logprobs.vllm.engine import VllmEngine

        found["davir vllm"] = by_engine(VllmEngine(path, dtype="float32", max_length=longest))
    return found


def time_all(
    scores: dict[str, Score], sequences: list[TokenSequence], repeats: int
) -> dict[str, list[float]]:
    """Time every backend in turn, `repeats` times over, so that noise hits all alike; check that they agree."""
    seconds: dict[str, list[float]] = {name: [] for name in scores}
    losses: dict[str, list[float]] = {}
    for score in scores.values():
        score(sequences[:8])
    for _ in range(repeats):
        for name, score in scores.items():
            start = now()
            losses[name] = score(sequences)
            seconds[name].append(now() - start)
            print(f"  {name}: {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
    first = next(iter(losses))
    for name, values in losses.items():
        np.testing.assert_allclose(values, losses[first], rtol=2e-4, err_msg=f"{name} against {first}")
    return seconds


def table(seconds: dict[str, list[float]], work: Work, peak: float) -> list[dict[str, Any]]:
    """Turn seconds into speeds, by the median."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    yardstick = min(value for name, value in medians.items() if name.startswith("lm-eval"))
    return [
        {
            "backend": name,
            "rows_per_second": round(work.rows / median, 2),
            "tokens_per_second": round(work.tokens / median, 1),
            "useful_gflops": round(work.gflop / median, 1),
            "share_of_peak": round(work.gflop / median / peak, 3),
            "times_lm_eval": round(yardstick / median, 2),
            "seconds": [round(value, 2) for value in seconds[name]],
        }
        for name, median in medians.items()
    ]


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", type=Path, default=ROOT.parent / "shared" / "data" / "alpaca-5k")
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vllm", action="store_true", help="also measure vLLM, where it is installed")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "engine_speed.json")
    options = parser.parse_args()
    sequences = read_rows(options.corpus, options.model, options.rows)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    work = measure_work(model, sequences)
    scores = backends(model, options.model, options.vllm, max(len(sequence.ids) for sequence in sequences))
    before = matmul_peak(model)
    seconds = time_all(scores, sequences, options.repeats)
    peaks = [before, matmul_peak(model)]
    lines = table(seconds, work, max(peaks))
    machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    facts = {"commit": commit.stdout.strip(), "machine": machine, "load": os.getloadavg(), "work": vars(work)}
    options.out.write_text(json.dumps({**facts, "matmul_gflops": peaks, "results": lines}, indent=1) + "\n")
    print(f"{work.rows} rows, {work.tokens} tokens, {work.scored} scored; peak {peaks} GFLOP/s; {machine}")
    for line in lines:
        print("  ".join(f"{value}" for key, value in line.items() if key != "seconds"))


if __name__ == "__main__":
    main()

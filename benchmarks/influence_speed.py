"""Rows a second of an influence measurement on a CPU: published way, a good loop, a peer, and ours, in turn.

    .venv/bin/python -m benchmarks.influence_speed --model quickstart/models/smollm2-135m-instruct

All but `losses` measure how Adam's step on each row lies to the directions of two subtasks, under one LoRA adapter:

published   one forward and backward pass a row; 16 rows' steps at a time are projected to 8192 dimensions by a dense
            matrix of random signs, as TRAK's BasicProjector does (made anew by torch, some columns at a time), and
            compared there. Projecting takes minutes: some columns are timed, and the time of all follows from them.
loop        one forward and backward pass a row by autograd, the head on the counted tokens alone, and exact products
bergson     bergson's InMemoryCollector: the gradients of padded batches as ours has them, kept whole without a
            projection; then exact products. Where it can be imported (pip install bergson==2.5.1).
losses      for comparison of costs: the two forward passes that DavIR's score and a target reference are made of, by
            the engine of kind `loss`
ours        davir_ray.influence, as the kind `less` measures

Prints a table, and writes benchmarks/influence_speed.json.
"""

import argparse
import importlib.util
import json
import logging
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from benchmarks.engine_speed import ROOT, now, read_rows
from benchmarks.token_values import facts
from davir_ray.influence.adapted import AdaptedModel
from davir_ray.influence.directions import Aligner, Directions
from davir_ray.influence.gradients import BATCH_TOKENS
from davir_ray.influence.moments import Moments
from davir_ray.influence.projection import DIMENSIONS
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hf.engine import TransformersEngine

PROJECTED_AT_ONCE = 16
"""Rows that LESS projects at a time."""
Way = Callable[[Sequence[TokenSequence]], Tensor]
"""Sequences to their cosines with each subtask [N, K]."""


def main() -> None:
    """Parse, measure, print, write."""
    logging.disable(logging.INFO)  # bergson names every module that it watches
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", type=Path, default=ROOT.parent / "shared" / "data" / "alpaca-5k")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, nargs="+", default=[128, 16])
    parser.add_argument("--columns", type=int, default=16, help="of the projection that are timed")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "influence_speed.json")
    options = parser.parse_args()
    rows = [row for row in read_rows(options.corpus, options.model, 400) if 20 <= len(row.ids) <= 200]
    rows = rows[: options.rows]
    figures = facts(rows) | {
        "results": [
            measure_rank(options.model, rank, rows, options.rounds, options.columns) for rank in options.ranks
        ]
    }
    options.out.write_text(json.dumps(figures, indent=1) + "\n")
    for result in figures["results"]:
        print_result(result)


class Setting:
    """A model with an adapter of one rank, moments and directions: the same numbers for every way."""

    def __init__(self, folder: str, rank: int) -> None:
        self.folder, self.rank = folder, rank
        generator = torch.Generator().manual_seed(0)

        def random(shape: torch.Size) -> Tensor:
            return torch.randn(shape, generator=generator)

        self.plain = self.model()
        shapes = {name: one.shape for name, one in parameters(self.plain).items()}
        self.size = sum(shape.numel() for shape in shapes.values())
        self.moments = Moments(
            {name: random(shape) * 1e-3 for name, shape in shapes.items()},
            {name: random(shape).square() * 1e-6 for name, shape in shapes.items()},
            learning_rate=1e-5,
            epoch=1,
            step=100,
        )
        self.directions: Directions = {
            name: torch.stack([random(shape), random(shape)]) for name, shape in shapes.items()
        }

    def model(self) -> PeftModel:
        """Load the base with a random adapter."""
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        modules = ["q_proj", "k_proj", "v_proj", "o_proj"]
        config = LoraConfig(r=self.rank, lora_alpha=4 * self.rank, lora_dropout=0.1, target_modules=modules)
        adapted = get_peft_model(base, config)
        for one in parameters(adapted).values():
            torch.nn.init.normal_(one, std=0.01)
        return adapted.eval()


def parameters(model: PeftModel) -> dict[str, Tensor]:
    """Map the name of each parameter of the adapter, as its file has it, to the parameter."""
    return {name.replace(".default", ""): one for name, one in model.named_parameters() if one.requires_grad}


class Loop:
    """One forward and one backward pass a row, and exact products."""

    def __init__(self, setting: Setting) -> None:
        self.model, self.parameters = setting.plain, parameters(setting.plain)
        self.first, self.second = (flat(part) for part in (setting.moments.first, setting.moments.second))
        self.directions = torch.cat([one.flatten(1) for one in setting.directions.values()], 1)

    def __call__(self, rows: Sequence[TokenSequence]) -> Tensor:
        """Return cosines, but for the directions' length."""
        return torch.stack([self.directions @ step / step.norm() for step in map(self.step, rows)])

    def step(self, row: TokenSequence) -> Tensor:
        """Return Adam's step on a row, as one vector."""
        return self.step_of(
            torch.cat([one.flatten() for one in torch.autograd.grad(self.loss(row), self.wanted())])
        )

    def step_of(self, gradient: Tensor) -> Tensor:
        """Return Adam's step of a gradient, as one vector."""
        root = torch.addcmul(self.second * 0.999 + 1e-8, gradient, gradient, value=0.001).sqrt_()
        return (self.first * 0.9).add_(gradient, alpha=0.1).div_(root)

    def wanted(self) -> list[Tensor]:
        """Return the parameters whose gradients are taken."""
        return list(self.parameters.values())

    def loss(self, row: TokenSequence) -> Tensor:
        """Return the mean loss of a row's counted tokens."""
        ids = torch.from_numpy(row.ids.astype(np.int64))
        before = torch.from_numpy(np.flatnonzero(row.scored) - 1)
        logits = self.model(input_ids=ids[None], logits_to_keep=before, use_cache=False).logits[0]
        return cross_entropy(logits.float(), ids[before + 1])


class Published(Loop):
    """The loop, with the loss of all positions, and each row's step projected before it is compared."""

    def __init__(self, setting: Setting, columns: int) -> None:
        super().__init__(setting)
        self.columns = columns
        self.projecting = 0.0

    def __call__(self, rows: Sequence[TokenSequence]) -> Tensor:
        """Return cosines in the columns that are timed; `projecting` is what all columns would take."""
        parts = []
        for at in range(0, len(rows), PROJECTED_AT_ONCE):
            steps = torch.stack([self.step(row) for row in rows[at : at + PROJECTED_AT_ONCE]])
            start = now()
            parts.append(self.project(steps))
            self.projecting += (now() - start) * (DIMENSIONS / self.columns - 1)
        return torch.cat(parts)

    def project(self, steps: Tensor) -> Tensor:
        """Project to some columns, whose signs are drawn anew as TRAK draws them."""
        generator = torch.Generator().manual_seed(0)
        matrix = torch.empty(steps.shape[1], self.columns)
        matrix.random_(0, 2, generator=generator).mul_(2).sub_(1)
        return steps @ matrix

    def loss(self, row: TokenSequence) -> Tensor:
        """Return the loss as the model computes it of labels."""
        ids = torch.from_numpy(row.ids.astype(np.int64))[None]
        labels = ids.masked_fill(~torch.from_numpy(row.scored), -100)
        loss: Tensor = self.model(input_ids=ids, labels=labels, use_cache=False).loss
        return loss


class Bergson(Loop):
    """Gradients of padded batches by bergson's hooks, kept whole; then the loop's products."""

    def __call__(self, rows: Sequence[TokenSequence]) -> Tensor:
        """Return cosines, but for the directions' length."""
        from bergson.collector.collector import CollectorComputer
        from bergson.collector.in_memory_collector import InMemoryCollector
        from bergson.config.config import IndexConfig
        from bergson.gradients import GradientProcessor
        from datasets import Dataset

        with tempfile.TemporaryDirectory() as folder:
            config = IndexConfig(run_path=folder, loss_reduction="mean")
            Path(config.partial_run_path).mkdir(parents=True)
            collector = InMemoryCollector(
                model=self.model,
                data=Dataset.from_dict(as_labels(rows)),
                cfg=config,
                processor=GradientProcessor(),
                target_modules={name.removesuffix(".weight") for name in self.by_module},
            )
            CollectorComputer(
                self.model, collector.data, collector=collector, batches=like_lengths(rows), cfg=config
            ).run_with_collector_hooks()
        found = torch.cat([collector.gradients[name.removesuffix(".weight")] for name in self.by_module], 1)
        return torch.stack([self.directions @ step / step.norm() for step in map(self.step_of, found)])

    @property
    def by_module(self) -> list[str]:
        """The names of the adapter's parameters in the model, in the order of the vectors."""
        return [name for name, one in self.model.named_parameters() if one.requires_grad]


def as_labels(rows: Sequence[TokenSequence]) -> dict[str, list[list[int]]]:
    """Return rows as datasets have them: what does not count has the label -100."""
    labels = [np.where(row.scored, row.ids, -100).tolist() for row in rows]
    return {"input_ids": [row.ids.tolist() for row in rows], "labels": labels}


def like_lengths(rows: Sequence[TokenSequence]) -> list[list[int]]:
    """Deal rows into batches of like length, of as many tokens as ours have."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    batches: list[list[int]] = [[]]
    for index in order:
        full = (len(batches[-1]) + 1) * len(rows[(batches[-1] or [index])[0]].ids) > BATCH_TOKENS["cpu"]
        batches.extend([[]] if batches[-1] and full else [])
        batches[-1].append(index)
    return batches


class Losses:
    """The losses of rows under two models."""

    def __init__(self, folder: str) -> None:
        self.engines = [TransformersEngine(folder, dtype="float32", device="cpu") for _ in range(2)]

    def __call__(self, rows: Sequence[TokenSequence]) -> Tensor:
        """Return the summed losses [N, 2]."""
        found = [[-float(one.sum()) for one in engine.logprobs(rows)] for engine in self.engines]
        return torch.tensor(found).t()


def flat(by_name: Any) -> Tensor:
    """Put tensors by name into one vector."""
    return torch.cat([one.flatten() for one in by_name.values()])


def measure_rank(
    folder: str, rank: int, rows: Sequence[TokenSequence], rounds: int, columns: int
) -> dict[str, Any]:
    """Time each way in turn, `rounds` times over, so that noise hits all alike."""
    setting = Setting(folder, rank)
    aligner = Aligner(AdaptedModel(setting.model()), setting.directions, setting.moments)
    published, loop = Published(setting, columns), Loop(setting)
    ways: dict[str, Way] = {"published": published, "loop": loop}
    if importlib.util.find_spec("bergson"):
        ways["bergson"] = Bergson(setting)
    ways |= {"losses": Losses(folder), "ours": lambda some: aligner.align(some)[0]}
    exact = ways["ours"](rows[:8])
    apart = {
        name: float((way(rows[:8]).double() - exact).abs().max() / exact.abs().max())
        for name, way in ways.items()
        if name in ("loop", "bergson")
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, int] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            published.projecting = 0.0
            (passed, peak) = timed(way, rows)
            seconds[name].append(passed + (published.projecting if name == "published" else 0))
            peaks[name] = max(peak, peaks.get(name, 0))
    return {
        "rank": rank,
        "parameters": setting.size,
        "apart": apart,
        "ways": table(seconds, peaks, len(rows)),
    }


def timed(way: Way, rows: Sequence[TokenSequence]) -> tuple[float, int]:
    """Return the seconds that a way takes, and by how many MiB the process grew."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, start = resident("VmRSS"), now()
    way(rows)
    return now() - start, resident("VmHWM") - before


def resident(key: str) -> int:
    """Return a size of this process, MiB, as the kernel counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(key))


def table(seconds: dict[str, list[float]], peaks: dict[str, int], rows: int) -> dict[str, Any]:
    """Set ours against the others: median and range of the rounds' ratios."""
    ours = seconds["ours"]
    return {
        name: {
            "rows_a_second": round(rows / statistics.median(values), 3),
            "ours_is_faster": round(statistics.median(v / o for v, o in zip(values, ours, strict=True)), 2),
            "range": sorted(round(v / o, 2) for v, o in zip(values, ours, strict=True))[:: len(ours) - 1],
            "peak_mib": peaks[name],
        }
        for name, values in seconds.items()
    }


def print_result(result: dict[str, Any]) -> None:
    """Print one rank's table."""
    print(
        f"rank {result['rank']}, {result['parameters']:,} parameters; ours is apart from them by {result['apart']}"
    )
    for name, one in result["ways"].items():
        print(
            f"{name:<12}{one['rows_a_second']:>9.3f} rows/s   ours x{one['ours_is_faster']:<8} {one['range']}"
            f"   {one['peak_mib']:>6} MiB"
        )


if __name__ == "__main__":
    main()

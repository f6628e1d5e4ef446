"""Rounds of a run that is struck: how they are drawn, played and judged.

A round is one `davir score` in a folder of its own, over a corpus that all share. Its chunks, exchanges and files are
small, so that every stage has many.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from davir_ray.storage.files import TEMPORARY
from tests.noted_engines import NOTES

ROOT = Path(__file__).resolve().parents[2]
CODE = (
    "from davir_ray.cluster import ray_exchange; from davir_ray.measure.chunks import CHUNK_TOKENS\n"
    "CHUNK_TOKENS['cpu'] = 300; ray_exchange.ROWS_PER_TASK, ray_exchange.ROWS_PER_PIECE = 15, 1\n"
    "from davir_ray.cli import main; main()"
)
FILES, ROWS_PER_FILE = 8, 6
STAGES = ("reading", "measuring", "part", "ranking", "exporting", "record")
EVENTS = {
    "reading": "prepare",
    "measuring": "measure",
    "part": "measure",
    "ranking": "rank",
    "exporting": "select",
}
TRIES = 4
ALL = [
    (victim, stage)
    for stage in STAGES
    for victim in ("actor", "worker", "node", "driver")
    if victim != "actor" or stage in ("reading", "measuring", "part")  # later there is none
]
"""Every victim in every stage that has one."""


@dataclass(frozen=True)
class Strike:
    """Who is killed, and when: `share` is how much of the stage has gone by then in an undisturbed run."""

    victim: str
    stage: str
    share: float


@dataclass(frozen=True)
class Round:
    """A run and what befalls it."""

    name: str
    strikes: tuple[Strike, ...]
    engine: str = "NotedHash"

    def earlier(self) -> "Round":
        """The same round, struck sooner: for a machine that is faster than it was."""
        strikes = tuple(replace(strike, share=strike.share / 3) for strike in self.strikes)
        return replace(self, strikes=strikes)


def drawn(seed: int) -> Round:
    """Draw a round of one strike; every third one has a real engine, and as many rounds as `ALL` meet all of it."""
    order = Random(seed // len(ALL)).sample(ALL, len(ALL))
    victim, stage = order[seed % len(ALL)]
    strike = Strike(victim, stage, Random(seed).uniform(0, 0.7))
    return Round(f"{seed}-{victim}-{stage}", (strike,), "NotedHash" if seed % 3 else "NotedTransformers")


class Arena:
    """A cluster in a process of its own (kill_arena.py)."""

    def __init__(self, nodes: int, log: Path) -> None:
        self.log = log.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray.kill_arena", str(nodes)],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def play(self, played: dict) -> dict:
        """Play a round; return what came of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(played), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"the cluster is gone: {Path(self.log.name).read_text()[-3000:]}"
        return json.loads(answer)

    def __enter__(self) -> "Arena":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


def environment() -> dict[str, str]:
    """Let workers import the tests, and keep a cluster that is there already out of it."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def write_corpus(folder: Path, files: int, rows_per_file: int) -> Path:
    """Write a corpus; one of its rows has no answer, and one is another's repeat."""
    folder.mkdir(parents=True)
    for file in range(files):
        rows = [
            {"question": f"What is {n}?", "answer": f"It is {n}. " * (1 + n % 5)}
            for n in range(file * rows_per_file, (file + 1) * rows_per_file)
        ]
        if file == 3:
            rows[2]["answer"] = ""
        if file == 5:
            rows[1] = {"question": "What is 0?", "answer": "It is 0. "}
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{file:02d}.parquet")
    return folder


@dataclass
class Grounds:
    """Where rounds are played: a corpus, two models, a cluster, and what undisturbed runs were like."""

    arena: Arena
    folder: Path
    models: tuple[str, str]
    files: int = FILES
    rows_per_file: int = ROWS_PER_FILE
    calm: dict[str, "Outcome"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.corpus = write_corpus(self.folder / "corpus", self.files, self.rows_per_file)

    def undisturbed(self, engine: str) -> "Outcome":
        """Return what comes of a run that nothing befalls."""
        if engine not in self.calm:
            self.calm[engine] = self.play(Round(f"calm-{engine}", (), engine))
        return self.calm[engine]

    def survived(self, round_: Round) -> "Outcome":
        """Play a round until every strike of it has hit."""
        calm = self.undisturbed(round_.engine)
        for attempt in range(TRIES):
            outcome = self.play(replace(round_, name=f"{round_.name}-{attempt}"), calm)
            if "missed" not in outcome.told:
                return outcome
            if "record" in outcome.told:
                assert_same_tables(outcome, calm)  # what did hit it counts
            round_ = round_.earlier()
        raise AssertionError(f"{round_.name} could not be struck in {TRIES} runs: {outcome.told['missed']}")

    def play(self, round_: Round, calm: "Outcome | None" = None) -> "Outcome":
        """Play a round once."""
        folder, command = self.command_of(round_)
        played = {
            "folder": str(folder),
            "command": command,
            "strikes": [
                {
                    "victim": one.victim,
                    "stage": one.stage,
                    "seconds": one.share * calm.seconds(one.stage),
                    "files": calm.coreset_files,
                }
                for one in round_.strikes
                if calm is not None
            ],
        }
        outcome = Outcome(folder, self.arena.play(played))
        assert outcome.told.get("code", 0) == 0, f"{round_}: {json.dumps(outcome.told, indent=1)}"
        return outcome

    def command_of(self, round_: Round) -> tuple[Path, list[str]]:
        """Make the folder of a round; return it with the command that runs it."""
        folder = self.folder / round_.name
        for name, model in zip(("base", "reference"), self.models, strict=True):
            shutil.copytree(model, folder / "models" / name)
        return folder, command_of(folder, self.corpus, round_.engine)


def command_of(folder: Path, corpus: Path, engine: str) -> list[str]:
    """Write the recipe of a round; return the command that runs it."""
    recipe = {
        "corpus": {"paths": str(corpus)},
        "models": {name: str(folder / "models" / name) for name in ("base", "reference")},
        "engine": {"type": f"tests.noted_engines:{engine}", "num_cpus": 1},
        "select": [{"type": "fraction", "fraction": 0.5}],
        "export": {"rows_per_file": 3},
        "store": str(folder / "store"),
        "output": str(folder / "runs"),
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return [sys.executable, "-c", CODE, "score", str(path), "--json"]


@dataclass
class Outcome:
    """What came of a round: what its processes told, and what lies in its folder."""

    folder: Path
    told: dict

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return Path(self.told["record"]["run_dir"])

    @property
    def coreset_files(self) -> int:
        """How many files the core-set has."""
        return len(list(self.run.glob("coreset/part-*")))

    def seconds(self, stage: str) -> float:
        """Tell how long a stage lasted."""
        if stage == "record":
            return 0.01
        times = {one["event"]: one["time"] for one in reversed(self.events())}
        order = [*dict.fromkeys(EVENTS.values())]
        end = dict(zip(order, [*(times[name] for name in order[1:]), self.ended()], strict=True))
        return end[EVENTS[stage]] - times[EVENTS[stage]]

    def events(self) -> list[dict]:
        """Read the events of the run."""
        return [json.loads(line) for line in (self.run / "events.jsonl").open()]

    def ended(self) -> float:
        """Tell when the record was written."""
        return (self.run / "record.json").stat().st_mtime

    def tables(self) -> dict[str, str]:
        """Return a digest of each file of the tables and the core-set; what a kill left half-written is none."""
        files = [path for name in ("scored", "unscored", "coreset") for path in (self.run / name).iterdir()]
        return {
            f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if not path.name.startswith(TEMPORARY)
        }

    def places(self) -> "Places":
        """Count where the rows went."""
        rows = [row for path in sorted(self.run.glob("scored/0*")) for row in pq.read_table(path).to_pylist()]
        lines = [json.loads(line) for path in sorted(self.run.glob("unscored/0*")) for line in path.open()]
        return Places(
            [row["rank"] for row in rows if row["rank"] is not None],
            Counter(row["status"] for row in rows),
            [(Path(line["file"]).name, line["row"], line["status"]) for line in lines],
        )

    def calls(self) -> list[dict]:
        """Read what the engines noted."""
        return [json.loads(line) for line in (self.folder / "models" / NOTES).open()]

    def again(self) -> int:
        """Count the calls of engines that repeat an earlier one: the work done again, in chunks."""
        return len(self.repeated())

    def repeated(self) -> list[tuple[str, ...]]:
        """List the calls of engines that repeat an earlier one: the model, and the sequences."""
        counted = Counter((call["model"], *call["ids"]) for call in self.calls())
        return list((counted - Counter(counted.keys())).elements())

    def told_again(self) -> int:
        """Count the sequences begun again, as the record tells."""
        return sum(self.told["record"]["measured_again"].values())

    def torn(self) -> int:
        """Count the files that a kill left half-written."""
        return sum(path.name.startswith(TEMPORARY) for path in self.folder.rglob(f"{TEMPORARY}*"))


@dataclass(frozen=True)
class Places:
    """Where the rows of a corpus went. unscored: file, row and status of each row without a rank."""

    ranks: list[int]
    status: Counter
    unscored: list[tuple[str, int, str]]


def assert_same_tables(struck: Outcome, calm: Outcome) -> None:
    """Compare the files of a run with those of the one that nothing befell."""
    found, expected = struck.tables(), calm.tables()
    other = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    assert not other, f"{struck.folder.name}: {summed(struck.told['strikes'])}: differs in {other}"


def summed(strikes: Sequence[dict]) -> str:
    """Tell what befell a run."""
    when = ("", ", its record written")
    return "; ".join(
        f"{one['victim']} while {one['stage']}{when[one['record']]} ({one['hit']})" for one in strikes
    )

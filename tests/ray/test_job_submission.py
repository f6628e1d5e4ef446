"""The commands of the documents as they stand there, in shells without an activated environment.

The folder is one as `make install` leaves it, with the smallest recipe of the README and what that names. Changed are
only the ports of the head (this machine may have another cluster), the folder of the cron line, and names of runs.
"""

import json
import re
import sched
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.documented_commands import FENCED, MARKDOWN, ROOT, Command, documented, of_block

DOCUMENTS = "".join((ROOT / name).read_text() for name in MARKDOWN)
COMMANDS = documented()
PLANTED = "planted"
SECRETS = {
    "AWS_ACCESS_KEY_ID": f"AKIA{PLANTED}",
    "AWS_SECRET_ACCESS_KEY": f"{PLANTED}/secret+key",
    "HF_TOKEN": f"hf_{PLANTED}",
    "WANDB_API_KEY": f"wandb-{PLANTED}",
}
"""In the environment of the head, and so of its jobs and their workers."""
OF_THE_COMMAND = re.compile(
    r"^\S+ \S+\s(INFO (cli|dashboard_sdk|packaging|job_manager)|WARNING resource_manager)\.py:"
)
"""What `ray job submit` and the server of jobs say themselves, and that a busy cluster has no CPU free yet."""
pytestmark = pytest.mark.ray


def block_with(text: str) -> str:
    """Return the first block of the documents that holds a text."""
    return next(block for _, block in FENCED.findall(DOCUMENTS) if text in block)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Return when something listens on a port."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise TimeoutError(f"nothing listens on port {port}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_models):
    """A clone of this repository after `make install`, with a corpus, two models and recipes."""
    clone = tmp_path_factory.mktemp("davir_ray")
    for name in ("davir_ray", "jobs"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "requirements", clone / "requirements")
    for name in (".gitignore", "Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    (clone / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (clone / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (clone / "models").mkdir()
    for name, model in zip(("base", "reference"), tiny_models, strict=True):
        (clone / "models" / name).symlink_to(model)
    rows = [{"question": f"What is {i}?", "answer": f"It is {i}."} for i in range(60)]
    (clone / "data" / "alpaca").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), clone / "data" / "alpaca" / "rows.parquet")
    text = block_with("paths: data/alpaca/*.parquet      #")
    (clone / "recipe.yaml").write_text(text)
    # A job works in a copy of the folder: as the documents say, its recipe has absolute paths.
    text = re.sub(r"(data|models)/", rf"{clone}/\1/", text)
    (clone / "jobs" / "recipes" / "cluster.yaml").write_text(
        f"{text}\nengine: {{type: transformers}}\nstore: {clone}/davir/store\noutput: {clone}/davir/runs\n"
    )
    return clone


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The environment of a shell that nobody prepared; Ray has sessions of its own, in a short path for its sockets."""
    sessions = tempfile.mkdtemp(prefix="ray-")
    yield SECRETS | {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "PYTHONPATH": str(ROOT),  # the environment may have been made for another clone
        "RAY_TMPDIR": sessions,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    shutil.rmtree(sessions, ignore_errors=True)


@pytest.fixture(scope="module")
def head(folder, bare):
    """A head node, started by the documents' own lines; the port of its job server."""
    *before, start, _ = of_block(block_with("ray start --head"))
    port = free_port()
    # The cluster of the other tests has an agent, too: each needs ports of its own.
    start += (
        f" --block --port={free_port()} --dashboard-port={port} --num-cpus=2 --object-store-memory=200000000"
    )
    start += f" --dashboard-agent-listen-port={free_port()} --ray-client-server-port={free_port()}"
    with (folder.parent / "head.log").open("wb") as log:
        command = ["sh", "-ec", "\n".join([*before, f"exec {start}"])]
        process = subprocess.Popen(
            command, cwd=folder, env=bare, stdout=log, stderr=log, start_new_session=True
        )
        wait_for(port)
        yield port
        process.terminate()
        process.wait(timeout=60)


def typed(text: str, folder: Path, bare: dict[str, str], *before: str) -> subprocess.CompletedProcess:
    """Run what somebody types into a fresh shell; again while the head is up and its job agent is not."""
    for _ in range(20):
        done = subprocess.run(
            ["sh", "-ec", "\n".join([*before, text])],
            cwd=folder,
            env=bare,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if "No available agent to submit job" not in done.stderr:
            break
        time.sleep(2)
    return done


@pytest.fixture(scope="module")
def submitted(head, folder, bare) -> str:
    """What `ray job submit ... jobs/score.py` prints, as the documents submit it: the log of the job."""
    exports = [line for line in of_block(block_with("ray start --head")) if line.startswith("export ")]
    submit = list(of_block(block_with("ray start --head")))[-1].replace(":8265", f":{head}")
    done = typed(submit, folder, bare, *exports)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def scored(submitted, folder):
    """The record of the job."""
    (record,) = folder.glob("davir/runs/cluster-*/record.json")
    return json.loads(record.read_text())


def test_the_log_of_a_job_has_no_banners_and_bars_of_libraries(submitted):
    assert "measure base: " in submitted
    noise = r"\r|it/s|\d%\||INFO|WARNING|Running Dataset|Loading weights|(?i:deprecat|usage stats|vllm v)"
    said = [line for line in submitted.splitlines() if not OF_THE_COMMAND.search(line)]
    assert [line for line in said if re.search(noise, line)] == []


def test_a_submitted_job_scores_a_corpus(scored):
    coreset = pq.read_table(scored["coreset"]["parquet"]).to_pylist()
    assert scored["selected"] == len(coreset) == 3
    told = {row["rank"]: f"What is {row['row']}?" for row in scored["best"]}
    assert told == {row["davir_rank"]: row["question"] for row in coreset}
    assert {row["file"] for row in scored["best"]} == {scored["best"][0]["file"]}
    assert scored["best"][0]["file"].endswith("/data/alpaca/rows.parquet")


def test_the_cron_line_finds_the_night_done(head, folder, bare, scored):
    (line,) = [one.text for one in COMMANDS if one.text.startswith("30 2 * * *")]
    line = line.removeprefix("30 2 * * *").replace("/srv/davir_ray", str(folder)).replace(":8265", f":{head}")
    done = typed(line, Path("/"), bare)
    assert done.returncode == 0, done.stdout + done.stderr
    (night,) = (folder / "davir/runs/nightly/cluster/nights.jsonl").read_text().splitlines()
    assert json.loads(night)["run_id"] == scored["run_id"]


@pytest.mark.nightly
def test_a_schedule_fires_the_cron_line_twice_and_the_second_night_reuses_the_first(head, folder, bare):
    (line,) = [one.text for one in COMMANDS if one.text.startswith("30 2 * * *")]
    command = (
        line.removeprefix("30 2 * * *").replace("/srv/davir_ray", str(folder)).replace(":8265", f":{head}")
    )
    command = command.replace("cluster.yaml", "scheduled.yaml")
    text = (folder / "jobs" / "recipes" / "cluster.yaml").read_text()
    corpus = folder / "data" / "scheduled"
    (folder / "jobs" / "recipes" / "scheduled.yaml").write_text(text.replace("data/alpaca", "data/scheduled"))
    clock, codes = sched.scheduler(time.time, time.sleep), []

    def fire() -> None:
        """Add a file of 20 rows, as a day does, and start the command as cron does: with a shell, from elsewhere."""
        night = len(codes)
        rows = [{"question": f"What is {night}, {i}?", "answer": f"It is {i}."} for i in range(20)]
        corpus.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), corpus / f"{night}.parquet")
        codes.append(subprocess.run(["/bin/sh", "-c", command], cwd="/", env=bare, timeout=300).returncode)
        if len(codes) < 2:
            clock.enterabs(next_time(), 1, fire)

    clock.enterabs(next_time(), 1, fire)
    clock.run()
    assert codes == [0, 0]
    lines = (folder / "davir/runs/nightly/scheduled/nights.jsonl").read_text().splitlines()
    first, second = (json.loads(one) for one in lines)
    assert first["measured"] == second["measured"] == second["reused"] == {"base": 20, "reference": 20}
    assert first["reused"] == {"base": 0, "reference": 0}
    assert (second["rows"], second["drift"]["before"]) == (40, first["run_id"])


def next_time(seconds: float = 10.0) -> float:
    """The next time that a schedule of every so many seconds names, as cron's has minutes."""
    return (time.time() // seconds + 1) * seconds


def test_no_secret_of_the_environment_or_of_a_uri_is_left_behind(folder, bare, scored):
    export = next(of_block(block_with("davir validate recipe.yaml")))
    uri = f"s3://key:{PLANTED}@bucket/runs"
    told = typed(f"davir score recipe.yaml --set output={uri}", folder, bare, export)
    assert told.returncode == 2
    assert "holds credentials" in told.stderr
    assert PLANTED not in told.stdout + told.stderr
    places = {"runs and store": folder / "davir", "logs of Ray": Path(bare["RAY_TMPDIR"])}
    for name, place in places.items():
        files = [path for path in place.rglob("*") if path.is_file()]
        assert len(files) > 5, name
        assert [path for path in files if PLANTED.encode() in path.read_bytes()] == [], name


PLAIN = re.compile(r"davir (validate|inspect|scores|formats|status|store|--help)|make ")
"""Verbs that neither measure nor train: they take a second or two. Of `make` it is asked what it would do."""


WHOLE = re.compile(r"davir (scores|formats)|make ")
"""Those that prose names with all they take."""


@pytest.mark.parametrize(
    "command",
    sorted({one.text for one in COMMANDS if (WHOLE if one.is_named else PLAIN).match(one.text)}),
)
def test_a_plain_command_runs_as_it_stands(command: str, folder, bare, scored):
    text = re.sub(r"recipe-[0-9a-f]{12}", scored["run_id"], command)
    text = re.sub("^make ", "make -n ", text)
    export = next(of_block(block_with("davir validate recipe.yaml")))
    assert export.startswith("export PATH=")
    done = typed(text, folder, bare, export)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


RAY = [one for one in COMMANDS if re.search(r"(^|/| )ray ", one.text)]


@pytest.mark.parametrize("command", RAY, ids=lambda one: f"{one.file}: {one.text[:60]}")
def test_ray_has_the_verbs_and_options_of_a_command(command: Command):
    """`ray up` and its like would start machines of a cloud: of those, and of all others, words are looked at."""
    from ray.scripts.scripts import cli

    words = shlex.split(command.text)
    first = next(index for index, word in enumerate(words) if word.rsplit("/", 1)[-1] == "ray")
    verb, rest = cli, words[first + 1 :]
    while isinstance(verb, click.Group):
        name, *rest = rest
        verb = verb.get_command(click.Context(verb), name)
        assert verb is not None, name
    if not command.is_named:
        verb.make_context(name, rest)

import fnmatch
import io
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import constants

from davir_ray import storage
from davir_ray.coreset.summary import SourceShare
from davir_ray.errors import RecipeError, Unreachable
from davir_ray.recipe import parse_recipe
from davir_ray.runs.run import Run
from davir_ray.sharing.hub import push_to_hub
from davir_ray.sharing.licences import licence_of
from tests.fake_hub import fake_hub
from tests.records import run_record

TOKEN = "hf_" + "s3cr3t" * 6
SHARE = SourceShare(rows=12, selected=3, tokens=30, share_before=1.0, share_after=1.0)


@pytest.fixture
def hub(monkeypatch):
    with fake_hub() as one:
        monkeypatch.setattr(constants, "ENDPOINT", one.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield one


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "home" / "alice" / "rows"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Rows\n")
    (folder / "LICENSE").write_text("Attribution")
    return folder


def finished(tmp_path, paths, sources=("x",), **changes):
    """A finished run with a core-set of three rows a source."""
    tree = {
        "corpus": {"paths": paths},
        "models": {"base": f"{tmp_path}/home/alice/base", "reference": "org/ref"},
        "report_to": ["wandb"],
    }
    recipe = parse_recipe(tree | {"output": str(tmp_path / "runs")}, "r")
    run = Run.begin(recipe, "r-000000000001")
    for source in sources:
        folder = storage.join(run.folder, "coreset", *([source] if len(sources) > 1 else []))
        rows = {"text": ["a", "b", "c"], "davir_file": [f"{tmp_path}/home/alice/rows/a.parquet"] * 3}
        storage.write_table(f"{folder}/part-00000.parquet", pa.table(rows))
        storage.write_table(f"{folder}/part-00001.parquet", pa.table(rows).slice(0, 0))
    whole = {"run_id": run.run_id, "coreset": {"parquet": storage.join(run.folder, "coreset")}}
    run.finish(run_record(**(whole | {"sources": {"a|`b`<script>": SHARE}} | changes)))
    return run.folder


def header(hub) -> dict:
    _, text, _ = hub.files["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(text)


def test_the_core_set_and_its_card_become_a_data_set(hub, corpus, tmp_path):
    told = list(push_to_hub(finished(tmp_path, str(corpus)), "me/best", private=True, licence=None))
    assert told[0] == "pushed    3 rows in 1 files, licence cc-by-4.0"
    assert hub.repos["me/best"]["type"] == "dataset"
    assert hub.repos["me/best"].get("private", hub.repos["me/best"].get("visibility")) in (True, "private")
    assert set(hub.files) == {"README.md", "LICENSE", "data/part-00000.parquet"}
    assert hub.files["LICENSE"] == b"Attribution"
    rows = pq.read_table(io.BytesIO(hub.files["data/part-00000.parquet"]))
    assert rows.to_pydict() == {"text": ["a", "b", "c"], "davir_file": ["a.parquet"] * 3}
    assert header(hub)["license"] == "cc-by-4.0"
    assert header(hub)["configs"] == [{"config_name": "default", "data_files": "data/*.parquet"}]


def test_a_core_set_takes_the_place_of_the_one_that_was_pushed_before(hub, corpus, tmp_path):
    run = finished(tmp_path, str(corpus))
    list(push_to_hub(run, "me/best", private=False, licence=None))
    old = {"data/part-00007.parquet": b"old", "data/a/part-00000.parquet": b"old", "LICENSE-a": b"old"}
    ours = {"notes.md": b"ours", ".gitattributes": b"theirs"}
    hub.files |= old | ours
    told = list(push_to_hub(run, "me/best", private=False, licence=None))
    assert told[1] == "took out  3 files of an earlier push"
    assert set(hub.files) == {"README.md", "LICENSE", "data/part-00000.parquet", *ours}


@pytest.mark.parametrize(
    "card", [b"# Mine\n", b"---\ntags: [chat]\n---\n# Mine\n", b"---\nlicense: mit\n---\n"]
)
def test_rows_that_no_push_has_put_there_are_not_taken_out(hub, corpus, tmp_path, card):
    theirs = {"README.md": card, "data/train-00000-of-00001.parquet": b"theirs"}
    hub.files |= theirs
    with pytest.raises(
        RecipeError, match=r"holds data/train-00000-of-00001\.parquet, and its card does not say"
    ):
        list(push_to_hub(finished(tmp_path, str(corpus)), "me/best", private=False, licence=None))
    assert hub.files == theirs


@pytest.mark.parametrize(
    ("rows", "word"), [(999, "n<1K"), (1_000, "1K<n<10K"), (5_000_000, "1M<n<10M"), (10**8, "100M<n<1B")]
)
def test_sizes_are_told_in_the_words_of_the_hub(hub, corpus, tmp_path, rows, word):
    run = finished(tmp_path, str(corpus), selected=rows)
    list(push_to_hub(run, "me/best", private=False, licence=None))
    assert header(hub)["size_categories"] == word


def test_a_source_with_brackets_in_its_name_is_found_by_the_pattern_of_its_config(hub, corpus, tmp_path):
    run = finished(tmp_path, {"a[en]": str(corpus), "b": str(corpus)}, ("a[en]", "b"))
    list(push_to_hub(run, "me/best", private=False, licence="mit"))
    (one,) = (one for one in header(hub)["configs"] if one["config_name"] == "a[en]")
    assert fnmatch.filter(hub.files, one["data_files"]) == ["data/a[en]/part-00000.parquet"]


def test_the_card_says_what_was_chosen_and_how_and_nothing_of_this_machine(hub, corpus, tmp_path):
    list(push_to_hub(finished(tmp_path, str(corpus)), "me/best", private=False, licence=None))
    text = hub.files["README.md"].decode()
    assert (
        "3 of 12 rows (25.0%), 30 response tokens, chosen by davir_ray 0.1.0 with the score `davir`" in text
    )
    assert "| `a/'b'<script>` | 12 | 3 | 100.0% | 100.0% |" in text
    assert f"| `reference` | `org/ref` | `{'r' * 32}` |" in text
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert recipe["models"]["base"] == {"model_name_or_path": "base"}
    assert "report_to" not in recipe
    for secret in (TOKEN, "alice", str(tmp_path)):
        assert all(secret.encode() not in data for data in hub.files.values()), secret


def test_each_source_is_a_config_with_its_licence(hub, corpus, tmp_path):
    hub.licences["org/other"] = "mit"
    paths = {"a": str(corpus), "b": "hf://datasets/org/other/**/*.parquet"}
    list(push_to_hub(finished(tmp_path, paths, ("a", "b")), "me/best", private=False, licence=None))
    assert header(hub)["license"] == ["cc-by-4.0", "mit"]
    assert {one["config_name"]: one["data_files"] for one in header(hub)["configs"]} == {
        "a": "data/a/*.parquet",
        "b": "data/b/*.parquet",
    }
    assert "LICENSE-a" in hub.files


def test_rows_of_no_known_licence_are_not_pushed_unless_it_is_said(hub, corpus, tmp_path):
    (corpus / "README.md").write_text("# Rows\n")
    run = finished(tmp_path, f"{corpus}/*.parquet")
    with pytest.raises(
        RecipeError, match=r"source `corpus`: .*the licence of these rows is not known.*--license"
    ):
        list(push_to_hub(run, "me/best", private=False, licence=None))
    assert hub.asked == []
    list(push_to_hub(run, "me/best", private=False, licence="apache-2.0"))
    assert header(hub)["license"] == "apache-2.0"


@pytest.mark.parametrize("place", ["{}", "{}/*.jsonl", "{}/a.jsonl", "{}/data", "{}/data/**/*.parquet"])
def test_the_card_beside_the_files_or_above_their_folder_is_read(corpus, place):
    (corpus / "data").mkdir()
    (corpus / "data" / "x.parquet").write_text("x")
    assert licence_of("s", [place.format(corpus)]).names == ("cc-by-4.0",)


def test_what_the_hub_refuses_is_told_without_the_token(hub, corpus, tmp_path):
    hub.refuses = 403
    with pytest.raises(Unreachable, match=r"me/best: the hub refuses \(403\).*hf auth login") as caught:
        list(push_to_hub(finished(tmp_path, str(corpus)), "me/best", private=False, licence=None))
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"), [("a/b/c", "is no name of a data set"), ("best", "names no owner")]
)
def test_a_name_that_is_none_is_refused_before_the_hub_is_asked(hub, tmp_path, name, says):
    with pytest.raises(RecipeError, match=f"^{name}: {says}.*expected OWNER/NAME"):
        list(push_to_hub(str(tmp_path / "no run"), name, private=False, licence="mit"))
    assert hub.asked == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"selected": 0}, "chose no row"), ({"coreset": {"trl": "x"}}, "has no core-set in Parquet")],
)
def test_a_run_without_rows_to_push_is_told_of(hub, corpus, tmp_path, changes, says):
    with pytest.raises(RecipeError, match=says):
        list(push_to_hub(finished(tmp_path, str(corpus), **changes), "me/best", private=False, licence=None))


def test_the_command_goes_to_the_hub_of_the_environment_and_shows_no_token(corpus, tmp_path):
    run = finished(tmp_path, str(corpus))
    with fake_hub() as hub:
        own = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-m", "davir_ray.cli", "push-to-hub", run, "me/best"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | own, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "see       http://127.0.0.1" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    assert ("POST", "/api/repos/create", f"Bearer {TOKEN}") in hub.asked

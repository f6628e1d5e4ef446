"""Rows that serve a target, on real Ray: warm-up, gradients, ranking, a new night, another target, a kill."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
)

from davir_ray import pipeline
from davir_ray.errors import CorpusError, ModelError, RecipeError
from davir_ray.influence.moments import read_moments
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.measure.chunks import CHUNK_TOKENS
from davir_ray.planning.plan import TimeEstimate
from davir_ray.planning.ray_plan import preview
from davir_ray.recipe import parse_recipe
from davir_ray.runs.record import load_training
from davir_ray.train import steps
from tests.tiny_adapted import dpo_loss, flat, gradient_by_autograd, summed_logprob
from tests.trainings import write_pairs, write_rows

ROOT = Path(__file__).resolve().parents[2]
ROWS = 24
LABELS = ("warmup-0-rose", "warmup-1-rose")
CODE = (
    "from davir_ray.measure.chunks import CHUNK_TOKENS; CHUNK_TOKENS['cpu'] = 300\n"
    "from davir_ray.cli import main; main()"
)
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def tree(folder: Path, base: str, **changes) -> dict:
    return {
        "corpus": {"paths": f"{folder}/corpus/*.parquet"},
        "tokens": {"template": "plain", "max_length": 128},
        "models": {"base": base},
        "engine": {"num_cpus": 1},
        "target": {"paths": {"hh": f"{folder}/hh.parquet", "se": f"{folder}/se.parquet"}},
        "warmup": {"fraction": 0.5, "train": warm(2)},
        "score": {"name": "rose"},
        "store": str(folder / "store"),
        "output": str(folder / "runs"),
    } | changes


def warm(epochs: int, **changes) -> dict:
    lora = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    return {
        "num_train_epochs": epochs,
        "learning_rate": 1e-3,
        "num_cpus_per_worker": 1,
        "per_device_train_batch_size": 4,
        "zero_stage": None,
        "lora": lora,
        **changes,
    }


@pytest.fixture
def folder(tmp_path):
    """A corpus and the pairs of a target of two subtasks."""
    (tmp_path / "corpus").mkdir()
    write_rows(tmp_path / "corpus" / "a.parquet", ROWS)
    write_pairs(tmp_path / "hh.parquet", 3)
    write_pairs(tmp_path / "se.parquet", 5)
    return tmp_path


def sequences(store: Path, view: str) -> dict[bytes, TokenSequence]:
    """Read the token ids of a view of each example from the prepared corpora of a store."""
    found = {}
    for part in store.glob("prepared/*/tokens/*.parquet"):
        ids = pq.read_table(part.parents[1] / "examples" / part.name)["example_id"].to_pylist()
        for row in pq.read_table(part).to_pylist():
            if row["view"] == view:
                one = TokenSequence(np.array(row["ids"], np.int32), np.array(row["scored"]))
                found[ids[row["example"]]] = one
    return found


def by_hand(checkpoint: str, base: str, rows, subtasks) -> np.ndarray:
    """Return the mean cosine of each row's step with each subtask's pairs, by autograd on one row at a time [N, K]."""
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64), checkpoint
    )
    model = model.double().eval()
    moments = read_moments(checkpoint)
    first, second = (
        flat({name: one.double() for name, one in some.items()}) for some in (moments.first, moments.second)
    )
    pairs = [
        [gradient_by_autograd(model, lambda it, p=p: dpo_loss(it, *p, 0.1)) for p in some]
        for some in subtasks
    ]
    found = []
    for row in rows:
        plain = gradient_by_autograd(
            model, lambda it, row=row: -summed_logprob(it, row) / int(row.scored.sum())
        )
        step = (0.9 * first + 0.1 * plain) / (0.999 * second + 0.001 * plain**2 + 1e-8).sqrt()
        found.append([np.mean([float(step @ g / (step.norm() * g.norm())) for g in some]) for some in pairs])
    return np.array(found)


def test_rose_from_nothing_is_what_one_row_at_a_time_gives(folder, tiny_models):
    recipe = parse_recipe(tree(folder, tiny_models[0], select=[{"type": "round_robin", "count": 4}]), "test")
    plan = preview(recipe, "test", probing=True)
    assert (plan.run_id, plan.to_make, plan.measured) == (None, ("warmup",), dict.fromkeys(LABELS, ROWS))
    assert not plan.estimate.not_priced
    _check_prices(folder, tiny_models[0], plan.estimate)
    record = pipeline.run_all(recipe, "test")
    assert record.measured == dict.fromkeys(LABELS, ROWS)
    assert preview(recipe, "test").finished
    assert record.status == {"ok": ROWS}
    epochs = record.reference.models["warmup"]
    assert [Path(one).name for one in epochs] == ["1", "2"]
    scored = pq.read_table(record.scored).to_pylist()
    assert sum(one.ranked for one in record.subtasks.values()) == ROWS
    assert f"<td>{min(record.subtasks)}</td>" in Path(record.run_dir, "report.html").read_text()
    rows = sequences(folder / "store", "response")
    few = _pairs(folder, tiny_models[0])
    weights = np.array([read_moments(one).learning_rate for one in epochs])
    cosines = [
        by_hand(one, tiny_models[0], [rows[row["example_id"]] for row in scored], few) for one in epochs
    ]
    expected = np.einsum("i,ink->nk", weights / weights.sum(), np.array(cosines))
    found = np.array([[row["score_hh"], row["score_se"]] for row in scored])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    assert [row["score"] for row in scored] == found.max(axis=1).tolist()
    taken = [int(np.argsort(-found[:, one], kind="stable")[0]) for one in (0, 1)]
    assert all(scored[one]["selected"] for one in taken)
    fewer = parse_recipe(tree(folder, tiny_models[0], select=[{"type": "count", "count": 2}]), "test")
    chosen_again = pipeline.score(steps.with_models(fewer, "test"), "test", may_measure=False)
    assert (chosen_again.selected, set(chosen_again.measured.values())) == (2, {0})


def _check_prices(folder: Path, base: str, estimate: TimeEstimate) -> None:
    """Compare the prices with tokens that are counted here."""
    corpus = sum(len(one.ids) for one in sequences(folder / "store", "response").values())
    target = sum(len(side.ids) for some in _pairs(folder, base) for pair in some for side in pair)
    tokens = {"warmup": corpus * 0.5 * 2, "target": target * 2} | dict.fromkeys(LABELS, corpus)
    priced = {"warmup": estimate.warmup, "target": estimate.target, **estimate.models}
    for name, one in priced.items():
        assert one.basis == f"a probe of {ROWS} rows"
        assert one.busy_seconds == pytest.approx(tokens[name] / one.tokens_per_second, rel=1e-3, abs=1e-4)
    assert priced.keys() == tokens.keys()
    assert estimate.seconds == pytest.approx(sum(one.seconds for one in priced.values()), abs=1e-3)
    assert all(one.seconds > 1e-3 for one in priced.values())


def _pairs(folder: Path, base: str) -> list[list[tuple[TokenSequence, TokenSequence]]]:
    """Tokenise the target's pairs as the recipe does."""
    from davir_ray.inputs import check_inputs

    few_shot = check_inputs(parse_recipe(tree(folder, base), "test"), needs=()).few_shot
    return [[(row.chosen, row.rejected) for row in one.rows] for one in few_shot.target.subtasks]


def test_a_new_night_measures_new_rows_and_another_target_all_of_them(folder, tiny_models):
    recipe = parse_recipe(tree(folder, tiny_models[0], warmup={"fraction": 0.5, "train": warm(1)}), "test")
    first = pipeline.run_all(recipe, "test")
    write_rows(folder / "corpus" / "b.parquet", ROWS + 3)  # with the rows of `a` in it
    again = pipeline.run_all(recipe, "test")
    assert again.reference.models == first.reference.models
    assert again.measured == {"warmup-rose": 3}
    write_pairs(folder / "hh.parquet", 4)
    plan = preview(recipe, "test")
    assert plan.measured == {"warmup-rose": ROWS + 3}
    assert [view.why for view in plan.views] == [{"new_target": ROWS + 3}]
    assert [change.what for change in plan.changes] == ["target_rows"]
    other = pipeline.run_all(recipe, "test")
    assert other.reference.models == first.reference.models
    assert other.measured == {"warmup-rose": ROWS + 3}


def test_stored_steps_serve_another_target_without_a_pass_over_the_corpus(folder, tiny_models):
    asked = tree(folder, tiny_models[0], score={"name": "less_projected"})
    first = pipeline.run_all(parse_recipe(asked, "test"), "test")
    labels = ["warmup-0-projected_step", "warmup-1-projected_step"]
    assert first.measured == dict.fromkeys(labels, ROWS)
    write_pairs(folder / "hh.parquet", 4)
    recipe = parse_recipe(asked | {"score": {"name": "rose_projected"}}, "test")
    plan = preview(recipe, "test", probing=True)
    assert (plan.finished, plan.measured) == (False, dict.fromkeys(labels, 0))
    assert (plan.estimate.target.basis, plan.estimate.models) == (f"a probe of {ROWS} rows", {})
    record = pipeline.run_all(recipe, "test")
    assert (record.measured, record.reference.models) == (dict.fromkeys(labels, 0), first.reference.models)
    scored = pq.read_table(record.scored).to_pylist()
    rows = sequences(folder / "store", "response")
    epochs, few = record.reference.models["warmup"], _pairs(folder, tiny_models[0])
    cosines = [
        by_hand(one, tiny_models[0], [rows[row["example_id"]] for row in scored], few) for one in epochs
    ]
    weights = np.array([read_moments(one).learning_rate for one in epochs])
    expected = np.einsum("i,ink->nk", weights / weights.sum(), np.array(cosines))
    found = np.array([[row["score_hh"], row["score_se"]] for row in scored])
    assert 0 < np.abs(found - expected).max() < 4 / 8192**0.5
    assert [row["score"] for row in scored] == found.max(axis=1).tolist()


def test_scores_do_not_depend_on_how_many_engines_measure(folder, tiny_models, monkeypatch):
    monkeypatch.setitem(CHUNK_TOKENS, "cpu", 150)
    asked = tree(folder, tiny_models[0], score={"name": "less"}, warmup={"fraction": 0.5, "train": warm(1)})
    (epoch,) = steps.make_models(parse_recipe(asked, "test"), "test")[0].models["warmup"]
    asked["models"] = {"base": tiny_models[0], "warmup": epoch}
    del asked["warmup"]
    scores = []
    for replicas in (1, 2):
        engine = {"num_cpus": 1, "replicas": replicas}
        own = {"store": f"{folder}/store{replicas}", "output": f"{folder}/runs{replicas}"}
        record = pipeline.score(parse_recipe(asked | own | {"engine": engine}, "test"), "test")
        assert (record.measured, record.status) == ({"warmup-less": ROWS}, {"ok": ROWS})
        scores.append(pq.read_table(record.scored).select(["example_id", "score", "rank", "score_hh"]))
        assert len(list(folder.glob(f"store{replicas}/measurements/*/*.parquet"))) >= 4
    assert scores[0].equals(scores[1])


def run_in_process(folder: Path, recipe: dict) -> subprocess.Popen:
    (folder / "test.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-c", CODE, "run", str(folder / "test.yaml")]
    variables = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, env=variables, **quiet)


def kill_when(process: subprocess.Popen, is_time) -> None:
    end = time.monotonic() + 300
    while not is_time():
        assert time.monotonic() < end, "its time did not come"
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.02)
    process.kill()
    process.wait()


def results(folder: Path) -> dict[str, bytes]:
    """Read what a run made, under names without its folder: the scored table, and the tensors of the checkpoints."""
    scored = {
        f"scored/{one.name}": pq.read_table(one)
        for one in sorted(folder.glob("runs/test-*/scored/*.parquet"))
    }
    tensors = {
        f"{one.parent.name}/{one.name}": {
            name: value.numpy().tobytes() for name, value in load_file(one).items()
        }
        for one in sorted(folder.glob("runs/test-warmup-*/epochs/*/*.safetensors"))
    }
    columns = ["example_id", "rank", "score", "score_hh", "score_se", "selected"]
    return {name: table.select(columns).to_pydict() for name, table in scored.items()} | tensors


@pytest.mark.nightly
def test_a_run_killed_while_it_warms_up_and_while_it_measures_ends_with_the_same_bytes(
    folder, tiny_models, tmp_path_factory
):
    calm = tmp_path_factory.mktemp("calm")
    train = warm(3, save_steps=1)
    asked = tree(folder, tiny_models[0], warmup={"fraction": 0.5, "train": train})
    undisturbed = asked | {"store": f"{calm}/store", "output": f"{calm}/runs"}
    assert run_in_process(calm, undisturbed).wait(timeout=600) == 0
    process = run_in_process(folder, asked)
    kill_when(process, lambda: list(folder.glob("runs/test-warmup-*/epochs/1/moments.safetensors")))
    process = run_in_process(folder, asked)
    kill_when(process, lambda: len(list(folder.glob("store/measurements/*/*.parquet"))) >= 2)
    assert run_in_process(folder, asked).wait(timeout=600) == 0
    assert len(results(calm)) == 1 + 3 * 2
    assert results(folder) == results(calm)


@pytest.mark.parametrize(
    "zero_stage",
    [pytest.param(0, marks=pytest.mark.nightly), 2, pytest.param(3, marks=pytest.mark.nightly)],
)
def test_moments_are_those_of_a_training_without_deepspeed(folder, tiny_models, zero_stage):
    def made(stage) -> dict[str, torch.Tensor]:
        train = warm(1, zero_stage=stage)
        recipe = parse_recipe(tree(folder, tiny_models[0], warmup={"fraction": 0.5, "train": train}), "test")
        (epoch,) = steps.make_models(recipe, "test")[0].models["warmup"]
        read_moments(epoch)  # which checks that they fit the adapter beside them
        return load_file(Path(epoch) / "moments.safetensors")

    plain, split = made(None), made(zero_stage)
    assert plain.keys() == split.keys()
    assert all(one.abs().max() > 0 for name, one in plain.items() if "lora_B" in name)
    for name, one in plain.items():
        torch.testing.assert_close(split[name], one, rtol=1e-3, atol=1e-9)


def pooled(model, sequence: TokenSequence) -> torch.Tensor:
    """Return the mean of a sequence's last hidden states, weighted by position."""
    ids = torch.from_numpy(sequence.ids.astype(np.int64))
    states = model.model(input_ids=ids[None]).last_hidden_state[0]
    weights = torch.arange(1, len(ids) + 1, dtype=states.dtype)
    return (states * (weights / weights.sum())[:, None]).sum(0)


def test_rds_needs_nothing_made_and_names_rows_that_the_target_has_too(folder, tiny_models):
    asked = tree(folder, tiny_models[0], score={"name": "rds"})
    del asked["warmup"]
    recipe = parse_recipe(asked, "test")
    record = pipeline.run_all(recipe, "test")
    assert record.measured == {"base-representation": ROWS}
    model = AutoModelForCausalLM.from_pretrained(tiny_models[0]).eval()
    rows = sequences(folder / "store", "response")
    few = [[pooled(model, chosen) for chosen, _ in some] for some in _pairs(folder, tiny_models[0])]
    for row in pq.read_table(record.scored).to_pylist():
        vector = pooled(model, rows[row["example_id"]])
        nearest = [max(float(torch.cosine_similarity(vector, one, dim=0)) for one in some) for some in few]
        assert [row["score_hh"], row["score_se"]] == pytest.approx(nearest, abs=1e-5)
        assert row["score"] == max(row["score_hh"], row["score_se"])
    both = record.overlaps
    exact = sum(not one.near for one in both.named)
    assert (both.same, exact) == (
        3,
        5,
    )  # questions 0, 1 and 3 are answered alike, and 3 is in one subtask only
    (folder / "corpus" / "a.parquet").unlink()
    write_rows(folder / "corpus" / "b.parquet", ROWS + 1)
    assert pipeline.run_all(recipe, "test").measured == {"base-representation": 1}


def test_models_of_the_target_begin_from_what_they_are_compared_with(folder, tiny_models):
    target = {"fit": "target", "start": "warmup", "train": {"num_cpus_per_worker": 1, "zero_stage": None}}
    asked = tree(folder, tiny_models[0], references={"target": target}, score={"name": "tov"})
    asked["select"] = [{"type": "mix", "fraction": 0.5, "bands": 2}]
    record = pipeline.run_all(parse_recipe(asked, "test"), "test")
    labels = ["prior-0", "prior-1", "target-0", "target-1"]
    assert record.measured == dict.fromkeys(labels, ROWS)
    assert len({record.models[name][0] for name in labels}) == 4
    trained = [load_training(one.run_dir) for one in record.reference.trainings]
    assert [one.trained_on for one in trained[1:]] == ["the target"] * 2
    assert [one.base for one in trained[1:]] == [record.models[name][0] for name in labels[:2]]
    assert trained[1].settings.learning_rate == pytest.approx(1e-4)  # a tenth of the warm-up's
    assert [one.steps for one in trained[1:]] == [one.rows for one in trained[1:]]  # batches of one row
    made = record.reference.models
    for start, end in zip(made["warmup"], made["target"], strict=True):
        before, after = (load_file(f"{one}/adapter_model.safetensors") for one in (start, end))
        assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-5
    scores = pq.read_table(record.scored)["score"].drop_null().to_numpy()
    assert np.ptp(scores) > 1e-5  # in nats a token: it is of models that differ


def test_a_reference_may_be_made_of_the_target(folder, tiny_models):
    pairs = {"objective": "dpo", "num_cpus_per_worker": 1, "zero_stage": None, "learning_rate": 1e-3}
    pairs["eval_corpus"] = {"paths": f"{folder}/hh.parquet"}
    asked = tree(folder, tiny_models[0], reference={"fit": "target", "train": pairs}, score={"name": "davir"})
    del asked["warmup"]
    record = pipeline.run_all(parse_recipe(asked, "test"), "test")
    assert record.measured["reference"] == ROWS  # DPO's frozen policy had some rows measured under the base
    (training,) = record.reference.trainings
    assert (training.objective, training.rows) == ("dpo", 5)  # three of the eight are the same pairs
    assert training.steps == 5
    scores = pq.read_table(record.scored)["score"].drop_null().to_numpy()
    assert np.ptp(scores) > 1e-6
    assert (training.eval_rows, training.overlaps.same, training.overlaps.near) == (3, 3, 0)
    assert training.overlaps.named[0].corpus == f"{folder}/hh.parquet:0"


@pytest.mark.parametrize(
    ("score", "write", "message"),
    [
        (
            "rose",
            lambda folder: write_rows(folder / "hh.parquet", 3),
            "hh.parquet:0: has no rejected response",
        ),
        ("less", lambda folder: write_rows(folder / "hh.parquet", 0), "target.paths.hh"),
        (
            "less",
            lambda folder: _write_long(folder / "hh.parquet"),
            "hh.parquet:1: its response is longer than",
        ),
    ],
)
def test_a_target_that_cannot_serve_is_refused_before_anything_is_made(
    folder, tiny_models, score, write, message
):
    write(folder)
    recipe = parse_recipe(tree(folder, tiny_models[0], score={"name": score}), "test")
    with pytest.raises(CorpusError, match=message):
        pipeline.run_all(recipe, "test")
    assert not (folder / "runs").exists()


def _write_long(file: Path) -> None:
    import pyarrow as pa

    rows = [{"prompt": "a", "chosen": "b" * n, "rejected": "c"} for n in (1, 300)]
    pq.write_table(pa.Table.from_pylist(rows), file)


def test_what_is_not_made_yet_is_named(folder, tiny_models):
    recipe = parse_recipe(tree(folder, tiny_models[0]), "test")
    with pytest.raises(RecipeError, match=r"models.warmup: is not made yet; `davir reference` makes it"):
        steps.with_models(recipe, "test")


@pytest.fixture
def neox(folder, tiny_models):
    """A base whose attention is one layer, which the published warm-up does not name, and an adapter over it."""
    base = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=AutoConfig.from_pretrained(tiny_models[0]).vocab_size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=256,
        )
    )
    base.save_pretrained(folder / "neox")
    AutoTokenizer.from_pretrained(tiny_models[0]).save_pretrained(folder / "neox")
    lora = LoraConfig(r=4, target_modules=["query_key_value"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "neox"), lora).save_pretrained(folder / "w")
    return str(folder / "neox"), str(folder / "w")


def test_a_probe_takes_the_checkpoint_that_a_recipe_names(folder, neox):
    base, checkpoint = neox
    asked = tree(folder, base, models={"base": base, "warmup": checkpoint}, score={"name": "gradient_cosine"})
    del asked["warmup"]
    plan = preview(parse_recipe(asked, "test"), "test", probing=True)
    assert (plan.to_make, plan.measured) == ((), {"warmup-gradient_cosine": ROWS})
    assert plan.estimate.models["warmup-gradient_cosine"].basis == f"a probe of {ROWS} rows"
    assert (plan.estimate.warmup, plan.estimate.not_priced) == (None, ())
    assert plan.estimate.target.seconds > 0


def test_an_adapter_that_does_not_fit_the_base_is_told_with_its_setting(folder, neox):
    asked = tree(folder, neox[0], score={"name": "gradient_cosine"}, warmup={})
    message = r"warmup\.train\.lora\.target_modules: names no module .* query_key_value"
    with pytest.raises(ModelError, match=message):
        preview(parse_recipe(asked, "test"), "test", probing=True)
    with pytest.raises(ModelError, match=message):
        steps.make_models(
            parse_recipe(asked | {"warmup": {"fraction": 0.5, "train": warm(1, lora={"r": 4})}}, "test"),
            "test",
        )

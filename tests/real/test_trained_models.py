"""SmolLM2 trained for two steps, all weights and as LoRA: the folders that come out are normal models.

What the trainer itself said of the model (its loss on held-out rows after the last step), transformers or PEFT say of
the folder, and vLLM token by token.
"""

import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from davir_ray.config import ModelsConfig, TokensConfig
from davir_ray.models.resolve import resolve_all
from davir_ray.runs.record import TrainingRecord
from davir_ray.tokens.tokenizer import load_tokenizer, tokenizer_identity
from davir_ray.train import steps as training
from tests import trainings
from tests.real.test_vllm_engine import TOLERANCE, plain, worst
from tests.real.vllm_process import in_child

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

KINDS = {"full": {"learning_rate": 1e-4}, "lora": {"learning_rate": 1e-2, "lora": {"r": 8}}}
TRAIN = {
    "max_steps": 2,
    "save_steps": 2,
    "per_device_train_batch_size": 2,
    "zero_stage": 2,
    "lr_scheduler_type": "constant",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def trained(folder, smollm2, ray_cluster) -> dict[str, dict]:
    """Train both at once; records by kind."""
    trainings.one_thread()
    rows = [
        {"question": f"What is {n} plus {n * 7}?", "answer": f"It is {n * 8}, my dear."} for n in range(4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    corpus = {"paths": str(folder / "rows.parquet")}

    def train(kind: str) -> dict:
        settings = TRAIN | KINDS[kind] | {"corpus": corpus, "eval_corpus": corpus}
        return training.train(trainings.recipe(folder, smollm2, corpus["paths"], settings), kind)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(KINDS, pool.map(train, KINDS), strict=True))


@pytest.fixture(scope="module")
def rows(folder, trained) -> list[tuple[list[int], list[bool]]]:
    """The rows as they were tokenised."""
    (file,) = folder.glob("store/prepared/*/tokens/*.parquet")
    return [(row["ids"], row["scored"]) for row in pq.read_table(file).to_pylist()]


def parts(kind: str, record: TrainingRecord, smollm2: str) -> tuple[str, str | None]:
    """Return the folder of the model, and of an adapter over it."""
    return (record.model, None) if kind == "full" else (smollm2, record.model)


@pytest.fixture(scope="module")
def by_transformers(trained, smollm2, rows) -> dict[str, list[np.ndarray]]:
    """Log-probabilities of the tokens that count, by transformers and PEFT alone."""
    found = {}
    for kind, record in trained.items():
        model, adapter = parts(kind, record, smollm2)
        found[kind] = plain(model, rows, adapter)
    return found | {"base": plain(smollm2, rows)}


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_finds_the_loss_that_the_trainer_had(kind, trained, by_transformers):
    tokens = np.concatenate(by_transformers[kind])
    said = trained[kind].eval.after["loss"]
    print(f"{kind}: trainer {said:.7f}, transformers {-tokens.mean():.7f}")
    assert -tokens.mean() == pytest.approx(said, rel=1e-5)
    before = -np.concatenate(by_transformers["base"]).mean()
    assert trained[kind].eval.before["loss"] == pytest.approx(before, rel=1e-5)
    assert said < before - 0.05


@pytest.fixture(scope="module")
def by_vllm(trained, smollm2, rows, tmp_path_factory) -> dict[str, list[np.ndarray]]:
    """The same by vLLM, in one process of its own."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed")
    out = tmp_path_factory.mktemp("vllm")
    jobs = []
    for kind, record in trained.items():
        model, adapter = parts(kind, record, smollm2)
        jobs.append({"model": model, "adapter": adapter, "calls": {str(out / kind): rows}})
    in_child("vllm_child", [job | {"max_length": 128, "refused": None} for job in jobs], out, {})
    return {kind: list(np.load(out / f"{kind}.npz").values()) for kind in trained}


@pytest.mark.parametrize("kind", KINDS)
def test_vllm_finds_the_same_log_probabilities(kind, by_vllm, by_transformers):
    gap = worst(by_vllm[kind], by_transformers[kind])
    print(f"{kind}: largest difference of a token {gap:.1e} nats")
    assert gap < TOLERANCE
    assert worst(by_vllm[kind], by_transformers["base"]) > 100 * TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_serves_as_the_reference(kind, trained, smollm2):
    models = ModelsConfig(base=smollm2, reference=trained[kind].model)
    found = resolve_all(models)
    base, reference = found["base"][0], found["reference"][0]
    model, adapter = parts(kind, trained[kind], smollm2)
    assert Path(reference.model_path).samefile(model)
    assert (reference.adapter_path is None) == (adapter is None)
    assert reference.identity != base.identity
    ours, theirs = (load_tokenizer(one, TokensConfig()) for one in (base.tokenizer_path, trained[kind].model))
    assert tokenizer_identity(ours) == tokenizer_identity(theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_says_what_made_it_and_holds_no_pickle(kind, trained, smollm2):
    model = Path(trained[kind].model)
    made = json.loads((model / "davir_training.json").read_text())
    assert made["run_id"] == trained[kind].run_id
    assert made["base"] == resolve_all(ModelsConfig(base=smollm2))["base"][0].identity
    assert made["recipe"]["train"]["max_steps"] == made["steps"] == 2
    assert made["versions"]["trl"]
    assert not [file for file in model.iterdir() if file.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    for name in ("tokenizer.json", "generation_config.json"):
        assert (model / name).read_bytes() == (Path(smollm2) / name).read_bytes()

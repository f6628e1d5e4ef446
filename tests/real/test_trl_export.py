"""What the exports of pairs are for stock TRL: its DPOTrainer, unchanged, on the files as they lie."""

import json
import re
from pathlib import Path

import pytest
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from davir_ray.config import TokensConfig
from davir_ray.coreset.export import Template, shaped
from davir_ray.corpus.example import Example
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hf.engine import TransformersEngine
from davir_ray.schema import View
from davir_ray.tokens.tokenizer import load_tokenizer
from davir_ray.tokens.views import sequences

pytestmark = pytest.mark.real

MAX_LENGTH = 160
LOG_2 = 0.6931


def pair(shared: list[str], chosen: list[str], rejected: list[str]) -> Example:
    def turns(texts):
        return tuple({"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts))

    return Example(messages=turns([*shared, *chosen]), rejected=turns([*shared, *rejected]))


PAIRS = [
    pair(["2+2?"], ["4"], ["5, I think."]),
    pair(["Hi.", "Hello there.", "2+3?"], ["5"], ["It is 6."]),
    pair(["Name a city."], ["Ulm.", "Another?", "Bonn."], ["Rome.", "Another?", "Paris."]),
    pair(["Go on."], ["on and " * 40], ["off " * 8]),  # cut at MAX_LENGTH
]


def frozen_losses(base: str, example: Example) -> dict[str, float]:
    """Measure what `trl_frozen` exports, as a run does: the engine's sums over the views of the completions."""
    views = [View.COMPLETION, View.REJECTED_COMPLETION]
    config = TokensConfig(max_length=MAX_LENGTH)
    made = sequences(example, load_tokenizer(base, config), config, views)
    values = TransformersEngine(base).logprobs([TokenSequence(one.ids, one.scored) for one in made])
    names = ("frozen_chosen_loss", "frozen_rejected_loss")
    return {name: -float(one.sum(dtype=float)) for name, one in zip(names, values, strict=True)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_models) -> dict[str, str]:
    """The files of both exports."""
    folder, files = tmp_path_factory.mktemp("exported"), {}
    for name in ("trl", "trl_frozen"):
        files[name] = str(folder / f"{name}.jsonl")
        lines = [shaped(one, frozen_losses(tiny_models[0], one), name, Template({})) for one in PAIRS]
        Path(files[name]).write_text("".join(f"{line}\n" for line in lines))
    return files


def documented_trainer() -> type[DPOTrainer]:
    """Run the trainer that the documents give to users."""
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "DPOTrainer" in block)
    names: dict = {}
    exec(code, names)
    return names["FrozenDPOTrainer"]


def trained(kind: type[DPOTrainer], base: str, file: str, folder: Path, precompute: bool) -> DPOTrainer:
    """Train two steps, each over all pairs."""
    arguments = DPOConfig(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=len(PAIRS),
        learning_rate=1e-2,
        logging_steps=1,
        max_length=MAX_LENGTH,
        precompute_ref_log_probs=precompute,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
    )
    trainer = kind(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=arguments,
        train_dataset=load_dataset("json", data_files=file, split="train", cache_dir=str(folder / "cache")),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    trainer.train()
    return trainer


def losses_of(trainer: DPOTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def stock(exported, tiny_models, tmp_path_factory) -> DPOTrainer:
    """Stock TRL on the `trl` export, with the log-probabilities that it computes itself."""
    return trained(DPOTrainer, tiny_models[0], exported["trl"], tmp_path_factory.mktemp("stock"), True)


def test_stock_trl_trains_on_the_plain_export_with_either_setting(stock, exported, tiny_models, tmp_path):
    other = trained(DPOTrainer, tiny_models[0], exported["trl"], tmp_path, False)
    for trainer in (stock, other):
        first, second = losses_of(trainer)
        assert first == pytest.approx(LOG_2, abs=1e-4)
        assert second < first
    assert losses_of(stock) == pytest.approx(losses_of(other), abs=1e-4)


def test_frozen_log_probabilities_are_those_that_trl_computes(stock, exported, tiny_models, tmp_path):
    trainer = trained(documented_trainer(), tiny_models[0], exported["trl_frozen"], tmp_path, True)
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        assert list(trainer.train_dataset[name]) == pytest.approx(list(stock.train_dataset[name]), rel=1e-4)
    assert losses_of(trainer) == pytest.approx(losses_of(stock), abs=1e-4)


def test_sums_are_over_the_exported_completion_alone(exported, tiny_models):
    config = TokensConfig(max_length=MAX_LENGTH)
    (every,) = sequences(PAIRS[1], load_tokenizer(tiny_models[0], config), config, [View.RESPONSE])
    values = TransformersEngine(tiny_models[0]).logprobs([TokenSequence(every.ids, every.scored)])
    row = json.loads(Path(exported["trl_frozen"]).read_text().splitlines()[1])
    assert [turn["content"] for turn in row["prompt"]] == ["Hi.", "Hello there.", "2+3?"]
    assert row["ref_chosen_logps"] > float(values[0].sum()) + 20, (
        "the first answer is not among what is summed"
    )

"""A vLLM engine that was switched gives the numbers of one that was started for the model, to the bit."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from davir_ray.logprobs.switching import RELOADED
from tests.real.vllm_process import in_child
from tests.unit.logprobs.hf.random_models import save

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed"),
]

OFTEN = ("llama", "qwen2")
SIZES = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "n_embd": 128, "sliding_window": 4096}
CANNOT_BE_UNTIED = ("gemma2",)


def family(folder: Path, models: list[tuple[str, str | None]], dtype: str = "float32") -> dict:
    (folder / "out").mkdir()
    return {"models": models, "out": str(folder / "out"), "dtype": dtype}


def two_of(model_type: str, folder: Path) -> dict:
    """Make two models that differ in every weight, and only so; heads have weights of their own (see `can_switch`)."""
    changes = SIZES | {"tie_word_embeddings": model_type in CANNOT_BE_UNTIED}
    folders = [save(folder / str(seed), model_type, seed, **changes) for seed in (0, 1)]
    states = [with_noise(one, seed) for seed, one in enumerate(folders)]
    assert not any(torch.equal(weight, states[1][name]) for name, weight in states[0].items())
    return family(folder, [(one, None) for one in folders])


def with_noise(folder: str, seed: int) -> dict[str, torch.Tensor]:
    """Add noise to all weights of a saved model, biases and norms too, which random models have alike; return them."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    model.save_pretrained(folder)
    return dict(model.named_parameters())


def base_with_adapters(folder: Path) -> dict:
    """Make a base, and two adapters over it of other ranks and modules."""
    base = save(folder / "base", "llama", **SIZES)
    models: list[tuple[str, str | None]] = [(base, None)]
    for number, (rank, modules) in enumerate(((4, ["q_proj", "v_proj"]), (9, ["down_proj", "o_proj"]))):
        model = AutoModelForCausalLM.from_pretrained(base)
        adapted = get_peft_model(
            model, LoraConfig(r=rank, target_modules=modules, init_lora_weights=False, task_type="CAUSAL_LM")
        )
        adapted.save_pretrained(folder / f"adapter-{number}")
        models.append((base, str(folder / f"adapter-{number}")))
    return family(folder, models)


def in_half(made: dict) -> str:
    """Make a folder for what the same models give in bfloat16."""
    folder = Path(made["out"]).with_name("bfloat16")
    folder.mkdir()
    return str(folder)


def numbers(made: dict, name: str) -> list[np.ndarray]:
    return list(np.load(Path(made["out"], f"{name}.npz")).values())


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def check(made: dict) -> None:
    alone = [numbers(made, f"alone-{number}") for number in range(len(made["models"]))]
    for number, expected in enumerate(alone):
        assert same(numbers(made, f"switched-{number}"), expected), made["models"][number]
        assert number == 0 or not same(alone[0], expected)
    assert same(numbers(made, "back"), alone[0])


def test_adapters_are_put_on_and_off_and_weights_read_in_place(tmp_path):
    folders = {name: tmp_path / name for name in ("adapters", *OFTEN)}
    made = [base_with_adapters(folders["adapters"]), *(two_of(name, folders[name]) for name in OFTEN)]
    made += [one | {"dtype": "bfloat16", "out": in_half(one)} for one in made[:2]]
    in_child("vllm_switches", made, tmp_path)
    for one in made:
        check(one)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_weights_of_every_architecture_that_is_listed_are_read_in_place(tmp_path):
    made = {name: two_of(name, tmp_path / name) for name in sorted(RELOADED)}
    in_child("vllm_switches", list(made.values()), tmp_path)
    for one in made.values():
        check(one)

"""Fixtures that several tiers share: a tiny model made on the spot, and SmolLM2 where a test needs a real one."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile(
    "davir", deadline=None, derandomize=True
)  # machines differ in speed; CI repeats itself
settings.load_profile("davir")

os.environ.setdefault("RAY_num_workers_soft_limit", "8")
"""Ray ends idle workers beyond the number of CPUs after a second; to start another takes seconds of imports."""

ROOT = Path(__file__).resolve().parent.parent
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def save_tiny_model(folder: Path, seed: int = 0) -> str:
    """Save a random two-layer Llama with a byte-level tokenizer and ChatML, as a normal model folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> tuple[str, str]:
    """A base and a reference: two random models with one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    return save_tiny_model(folder / "base", 0), save_tiny_model(folder / "reference", 1)


@pytest.fixture(scope="session")
def smollm2() -> str:
    """SmolLM2-135M-Instruct as a model folder: DAVIR_TEST_MODEL, or made as the quickstart makes it."""
    if folder := os.environ.get("DAVIR_TEST_MODEL"):
        return folder
    from jobs.prepare_quickstart.model import prepare_model

    return str(prepare_model(ROOT / "quickstart"))


@pytest.fixture(scope="session")
def ray_cluster():
    """Ray on this machine for all tests of a session that need it: two CPUs, and a lost node is noticed in seconds."""
    import ray

    from davir_ray.cluster import ray_session

    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        logging_level="error",
        object_store_memory=300 * 2**20,
        _system_config={"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500}
        | {"metrics_report_interval_ms": 1000},
    )
    ray_session.quiet_ray_data()
    yield
    ray.shutdown()

"""The sum of a model's weights, by which vLLM is found to have left some as they were."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from davir_ray.logprobs.switching import RELOADED
from davir_ray.logprobs.vllm.checksum import checksum, checksum_of_files, checksum_of_worker
from davir_ray.models.resolve import INDEX
from tests.unit.logprobs.hf.random_models import save


def held(folder, dtype) -> int:
    """Sum up what a worker holds that has read a folder."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return checksum_of_worker(SimpleNamespace(get_model=lambda: model), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_in_memory_has_the_sum_of_its_files(tmp_path, dtype, tied):
    one, two = (save(tmp_path / str(seed), "qwen2", seed, tie_word_embeddings=tied) for seed in (0, 1))
    sums = [checksum_of_files(folder, dtype, "cpu", tied=tied) for folder in (one, two)]
    assert sums == [held(one, dtype), held(two, dtype)]
    assert sums[0] != sums[1]


@pytest.mark.parametrize("model_type", sorted(RELOADED))
def test_the_files_of_every_architecture_hold_its_weights_and_nothing_else(tmp_path, model_type):
    folder = save(tmp_path / "m", model_type)
    tied = AutoConfig.from_pretrained(folder).tie_word_embeddings
    assert checksum_of_files(folder, torch.float32, "cpu", tied=tied) == held(folder, torch.float32)


def test_what_is_no_weight_and_what_an_index_does_not_name_is_left_out(tmp_path):
    folder = save(tmp_path / "m", "gpt2")
    whole = checksum_of_files(folder, torch.float32, "cpu", tied=True)
    file = tmp_path / "m" / "model.safetensors"
    older = load_file(file) | {
        "transformer.h.0.attn.bias": torch.ones(3),
        "rotary_emb.inv_freq": torch.ones(2),
    }
    save_file(older, file)
    save_file({"x.weight": torch.ones(3)}, tmp_path / "m" / "stray.safetensors")
    (tmp_path / "m" / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(older, file.name)}))
    assert checksum_of_files(folder, torch.float32, "cpu", tied=True) == whole


def test_places_do_not_matter_and_one_bit_does():
    a, b = torch.randn(4, 6), torch.randn(5, 6)
    joined = torch.cat([a, b, torch.zeros(3, 6)])
    whole = checksum([joined.T.contiguous()], torch.float32)
    assert whole == checksum([b, a[:2], a[2:]], torch.float32)
    a[1, 1] = torch.nextafter(a[1, 1], torch.tensor(9.0))
    assert whole != checksum([a, b], torch.float32)


def test_a_head_that_is_the_embeddings_counts_once_though_the_file_holds_it_twice(tmp_path):
    folder = save(tmp_path / "m", "llama", tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    twice = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert "lm_head.weight" in twice
    save_file(twice, tmp_path / "m" / "model.safetensors")
    assert checksum_of_files(folder, torch.float32, "cpu", tied=True) == held(folder, torch.float32)
    assert checksum_of_files(folder, torch.float32, "cpu", tied=False) != held(folder, torch.float32)

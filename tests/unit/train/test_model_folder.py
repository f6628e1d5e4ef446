import json
import shutil
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from davir_ray.config import LoraConfig, ModelConfig
from davir_ray.models.resolve import resolve
from davir_ray.train.arguments import peft_config
from davir_ray.train.model_folder import finish, upload
from tests.conftest import save_tiny_model

IDS = torch.tensor([[3, 14, 15, 92, 65, 35, 89]])
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Path(save_tiny_model(tmp_path_factory.mktemp("base")))


def load(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def save_as_a_trainer_does(model, base, folder):
    """Save a model beside what TRL leaves there: its own tokenizer with a padding token, a pickle, a model card."""
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    for name in ("training_args.bin", "README.md", "added_tokens.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def trained(base, tmp_path):
    return save_as_a_trainer_does(load(base), base, tmp_path / "trained")


@pytest.fixture
def adapter(base, tmp_path):
    """A LoRA over the base whose update is large enough to see."""
    torch.manual_seed(1)
    model = get_peft_model(load(base), peft_config(LoraConfig(r=4)))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    return save_as_a_trainer_does(model, base, tmp_path / "adapter")


def logits(model):
    with torch.no_grad():
        return model(IDS).logits.float()


def names(folder):
    return {path.name for path in folder.iterdir()}


def assert_tokenizer_is_the_base_s(folder, base):
    for name in TOKENIZER:
        assert (folder / name).read_bytes() == (base / name).read_bytes(), name


def test_the_tokenizer_is_the_base_s_byte_for_byte(base, trained):
    assert (trained / "tokenizer_config.json").read_bytes() != (base / "tokenizer_config.json").read_bytes()
    finish(trained, base, "org/base", merge=False)
    assert_tokenizer_is_the_base_s(trained, base)
    assert names(trained) == names(base)


def test_pickles_and_model_cards_are_left_out_and_weights_are_kept(base, trained):
    weights = (trained / "model.safetensors").read_bytes()
    finish(trained, base, "org/base", merge=False)
    assert not names(trained) & {"training_args.bin", "README.md", "added_tokens.json"}
    assert (trained / "model.safetensors").read_bytes() == weights


def test_an_adapter_stays_one_unless_it_is_to_be_merged(base, adapter):
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    finish(adapter, base, "org/base", merge=False)
    assert (adapter / "adapter_model.safetensors").read_bytes() == weights
    assert "config.json" not in names(adapter)
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/base"
    assert_tokenizer_is_the_base_s(adapter, base)


def test_a_merged_adapter_is_a_whole_model_that_computes_the_same(base, adapter):
    expected = logits(PeftModel.from_pretrained(load(base), adapter))
    assert (expected - logits(load(base))).abs().max() > 0.1
    finish(adapter, base, "org/base", merge=True)
    assert (logits(load(adapter)) - expected).abs().max() < 1e-5
    assert names(adapter) == names(base)
    assert_tokenizer_is_the_base_s(adapter, base)
    assert resolve(ModelConfig(model_name_or_path=str(adapter))).adapter_path is None


def test_a_merged_adapter_has_the_dtype_of_its_base(base, adapter, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(base, half)
    load(base).to(torch.bfloat16).save_pretrained(half)
    expected = logits(PeftModel.from_pretrained(load(half, dtype=torch.float32), adapter))
    finish(adapter, half, "org/base", merge=True)
    merged = load(adapter)
    assert {weight.dtype for weight in merged.parameters()} == {torch.bfloat16}
    assert json.loads((adapter / "config.json").read_text())["dtype"] == "bfloat16"
    assert (logits(merged.float()) - expected).abs().max() < 0.05


def test_merging_leaves_a_whole_model_alone(base, trained):
    finish(trained, base, "org/base", merge=True)
    assert (logits(load(trained)) - logits(load(base))).abs().max() == 0


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_model_is_uploaded_whole_in_the_place_of_an_older_one(base, tmp_path, kind):
    uri = str(tmp_path / "run" / "model") if kind == "local" else f"memory://{uuid4().hex}/model"
    fs, path = fsspec.core.url_to_fs(uri)
    fs.makedirs(path)
    fs.pipe_file(f"{path}/older.safetensors", b"old")
    upload(base, uri)
    found = {name.rsplit("/", 1)[-1]: fs.cat_file(name) for name in fs.ls(path, detail=False)}
    assert found == {file.name: file.read_bytes() for file in base.iterdir()}

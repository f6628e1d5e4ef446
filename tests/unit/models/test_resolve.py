import json
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from davir_ray.config import ModelConfig, ModelsConfig
from davir_ray.errors import EngineError, ModelError
from davir_ray.logprobs.choice import check_adapters
from davir_ray.models import resolve as models
from davir_ray.models.adapter import HIGHEST_RANK_OF_VLLM
from davir_ray.models.resolve import ResolvedModel, resolve, resolve_all


def save_model(folder: Path, *, value: float = 0.0, width: int = 4, **config) -> str:
    """A folder that looks like a model: one attention matrix and a config."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"model.layers.0.self_attn.q_proj.weight": np.full((width, width), value, np.float32)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    return str(folder)


def save_adapter(
    folder: Path, *, width: int = 4, rank: int = 2, module: str = "layers.0.self_attn.q_proj", **config
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f"base_model.model.model.{module}"
    weights = {
        f"{prefix}.lora_A.weight": np.zeros((rank, width), np.float32),
        f"{prefix}.lora_B.weight": np.zeros((width, rank), np.float32),
    }
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank} | config))
    return str(folder)


def named(path: str, **fields) -> ModelConfig:
    return ModelConfig(model_name_or_path=path, **fields)


def pair(base: str, reference: str | dict) -> ModelsConfig:
    return ModelsConfig(base=base, reference=reference)


def test_a_folder_resolves_to_itself_and_tells_its_architecture(tmp_path):
    found = resolve(named(save_model(tmp_path / "model")))
    assert found.model_path == str(tmp_path / "model")
    assert found.adapter_path is None
    assert found.model_type == "llama"


def test_the_identity_follows_the_content_and_not_the_place(tmp_path):
    here = resolve(named(save_model(tmp_path / "a")))
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    assert resolve(named(str(tmp_path / "elsewhere" / "b"))).identity == here.identity
    moved = save_model(tmp_path / "c", _name_or_path="another/place", transformers_version="9")
    assert resolve(named(moved)).identity == here.identity


def test_the_identity_changes_with_weights_config_and_adapter(tmp_path):
    base = save_model(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter")
    other = save_adapter(tmp_path / "other", lora_alpha=3)
    identities = {
        resolve(named(base)).identity,
        resolve(named(save_model(tmp_path / "weights", value=1.0))).identity,
        resolve(named(save_model(tmp_path / "config", rope_theta=5))).identity,
        resolve(named(base, adapter_name_or_path=adapter)).identity,
        resolve(named(base, adapter_name_or_path=other)).identity,
    }
    assert len(identities) == 5


def test_a_file_that_changes_in_place_is_hashed_again(tmp_path):
    path = save_model(tmp_path / "model")
    before = resolve(named(path)).identity
    save_model(tmp_path / "model", value=2.0)
    assert resolve(named(path)).identity != before


def test_where_an_adapter_was_trained_does_not_change_the_identity(tmp_path):
    base = save_model(tmp_path / "base")
    one = save_adapter(tmp_path / "one", base_model_name_or_path="/home/a/base")
    two = save_adapter(tmp_path / "two", base_model_name_or_path="/scratch/base")
    found = [resolve(named(base, adapter_name_or_path=path)).identity for path in (one, two)]
    assert found[0] == found[1]


def test_a_reference_that_is_only_an_adapter_goes_over_the_base(tmp_path):
    base_path, adapter = save_model(tmp_path / "base"), save_adapter(tmp_path / "adapter")
    found = resolve_all(pair(base_path, adapter))
    base, reference = found["base"][0], found["reference"][0]
    assert (reference.model_path, reference.adapter_path) == (base_path, adapter)
    assert reference.identity != base.identity
    assert list(resolve_all(ModelsConfig(base=base_path))) == ["base"]
    assert reference.doubt == ""


def test_the_tokenizer_is_the_adapters_where_it_brings_one(tmp_path):
    base, adapter = save_model(tmp_path / "base"), save_adapter(tmp_path / "adapter")
    config = named(base, adapter_name_or_path=adapter)
    assert resolve(config).tokenizer_path == base
    (tmp_path / "adapter" / "tokenizer_config.json").write_text("{}")
    assert resolve(config).tokenizer_path == adapter


def test_a_reference_without_a_tokenizer_uses_the_bases(tmp_path):
    base_path, other = save_model(tmp_path / "base"), save_model(tmp_path / "other", value=1.0)
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    (reference,) = resolve_all(pair(base_path, other))["reference"]
    assert reference is not None
    assert reference.tokenizer_path == base_path


def test_two_adapters_cannot_be_stacked(tmp_path):
    base, adapter = save_model(tmp_path / "base"), save_adapter(tmp_path / "adapter")
    models = ModelsConfig(base=named(base, adapter_name_or_path=adapter), reference=adapter)
    with pytest.raises(ModelError, match="second one"):
        resolve_all(models)


def test_an_adapter_is_no_model(tmp_path):
    with pytest.raises(ModelError, match="holds only an adapter"):
        resolve(named(save_adapter(tmp_path / "adapter")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 8}, r"q_proj is \[8, 8\] in the adapter and \[4, 4\] in the model"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        (
            {"r": 8},
            r"says rank 8 \(r, rank_pattern\) for model\.layers\.0\.self_attn\.q_proj, .* holds rank 2",
        ),
        ({"r": None}, "r is None; expected the rank"),
        ({"rank_pattern": {"q_proj": 4}}, "says rank 4"),
        ({"rank_pattern": {"q_proj": "4"}}, r"rank_pattern\['q_proj'\] is '4'"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(tmp_path, change, message):
    base, adapter = save_model(tmp_path / "base"), save_adapter(tmp_path / "adapter", **change)
    with pytest.raises(ModelError, match=message):
        resolve(named(base, adapter_name_or_path=adapter))


@pytest.mark.parametrize("pattern", ["q_proj", "self_attn.q_proj", r"layers\.[01]\.self_attn\.q_proj"])
def test_a_rank_pattern_is_read_as_peft_reads_it(tmp_path, pattern):
    base = save_model(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", r=16, rank_pattern={pattern: 2, "k_proj": 64})
    assert resolve(named(base, adapter_name_or_path=adapter)).adapter_path == adapter


def save_resized(folder: Path, rows: int) -> str:
    """An adapter as PEFT saves it after `resize_token_embeddings`: the whole embedding is in it."""
    save_adapter(folder)
    weights = load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.model.embed_tokens.weight"] = np.zeros((rows, 4), np.float32)
    save_file(weights, folder / "adapter_model.safetensors")
    return str(folder)


def test_an_adapter_with_resized_embeddings_is_refused_with_both_sizes(tmp_path):
    base = save_model(tmp_path / "base")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    weights["model.embed_tokens.weight"] = np.zeros((10, 4), np.float32)
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    for rows in (11, 10):
        config = named(base, adapter_name_or_path=save_resized(tmp_path / f"adapter{rows}", rows))
        if rows == 10:
            assert resolve(config).adapter_path is not None, "as PEFT loads it"
            continue
        with pytest.raises(
            ModelError, match=r"embed_tokens is \[11, 4\] in the adapter and \[10, 4\] in the"
        ):
            resolve(config)


@pytest.mark.parametrize(
    ("made_for", "doubt"),
    [
        ("{tmp}/base", None),
        ("{tmp}/copy", None),
        ("/elsewhere/base", None),
        ("org/base", None),
        ("{tmp}/other", "another model (other weights or config)"),
        ("org/another", "cannot be known here"),
        ("/elsewhere/another", "cannot be known here"),
    ],
)
def test_an_adapter_made_for_another_base_is_told_of(tmp_path, made_for, doubt):
    base = save_model(tmp_path / "base")
    save_model(tmp_path / "copy")
    save_model(tmp_path / "other", value=1.0)
    made_for = made_for.format(tmp=tmp_path)
    adapter = save_adapter(tmp_path / "adapter", base_model_name_or_path=made_for)
    (reference,) = resolve_all(pair(base, adapter))["reference"]
    assert (doubt is None) == (reference.doubt == "")
    assert doubt is None or (doubt in reference.doubt and f"was made for {made_for}" in reference.doubt)


def test_the_name_of_a_base_in_a_cache_is_what_the_recipe_calls_it(tmp_path, monkeypatch):
    folder = save_model(tmp_path / "snapshots" / "5ae01f")
    adapter = save_adapter(tmp_path / "adapter", base_model_name_or_path="org/name")
    monkeypatch.setattr(models, "fetch", lambda name, *_: Path(folder if name == "org/name" else adapter))
    (reference,) = resolve_all(pair("org/name", adapter))["reference"]
    assert reference.doubt == ""


def test_an_adapter_for_another_architecture_is_refused(tmp_path):
    base, other = save_model(tmp_path / "base"), save_model(tmp_path / "other", model_type="qwen2")
    adapter = save_adapter(tmp_path / "adapter", base_model_name_or_path=other)
    with pytest.raises(ModelError, match=r"was made for .*other, a qwen2; .*base is a llama"):
        resolve_all(pair(base, adapter))


def test_an_adapter_with_more_layers_than_the_model_is_refused(tmp_path):
    base, adapter = save_model(tmp_path / "base"), tmp_path / "adapter"
    save_adapter(adapter)
    path = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    shapes = {"A": (2, 4), "B": (4, 2)}
    weights = {path.format(i, k): np.zeros(shape, np.float32) for i in (0, 1) for k, shape in shapes.items()}
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"has no model\.layers\.1\.self_attn\.q_proj\.weight"):
        resolve(named(base, adapter_name_or_path=str(adapter)))


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def remove_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def scramble_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no tensors here, only words")


def name_a_missing_shard(folder: Path) -> None:
    shards = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))


def add_an_adapter(folder: Path) -> None:
    save_adapter(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_weights, r"has no \*\.safetensors"),
        (pickle_weights, "only safetensors are read"),
        (remove_config, r"has no config\.json"),
        (cut_weights, "is cut off"),
        (scramble_weights, "is not a safetensors file"),
        (name_a_missing_shard, r"lacks model-2\.safetensors"),
        (add_an_adapter, "a folder of its own"),
    ],
)
def test_a_folder_that_is_no_whole_model_is_refused(tmp_path, damage, message):
    path = save_model(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ModelError, match=message):
        resolve(named(path))


@pytest.mark.parametrize("name", ["/no/such/folder", "./missing", "a/b/c"])
def test_a_missing_folder_is_named(name):
    with pytest.raises(ModelError, match="there is no such folder"):
        resolve(named(name))


def test_a_revision_is_refused_where_it_has_no_effect(tmp_path):
    folder = save_model(tmp_path / "model")
    for name in (folder, f"file://{folder}", "memory://models/x"):
        with pytest.raises(ModelError, match=r"no model of the hub, where alone revision v2 has an effect"):
            resolve(named(name, revision="v2"))


def test_a_hub_id_that_cannot_be_had_says_what_was_tried(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"nobody/nothing: is no local folder.*local cache"):
        resolve(named("nobody/nothing"))


def test_a_model_behind_a_uri_is_copied_once_and_whole(tmp_path):
    import fsspec

    save_model(tmp_path / "model")
    (tmp_path / "model" / "optimizer.pt").write_bytes(b"not wanted")
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path / "model") + "/", "/models/x/", recursive=True)
    cache = tmp_path / "cache"
    found = resolve(named("memory://models/x"), cache)
    assert found.identity == resolve(named(str(tmp_path / "model"))).identity
    assert sorted(p.name for p in Path(found.model_path).iterdir()) == ["config.json", "model.safetensors"]
    assert resolve(named("memory://models/x"), cache) == found
    save_model(tmp_path / "model", value=3.0)
    store.put(str(tmp_path / "model") + "/", "/models/x/", recursive=True)
    changed = resolve(named("memory://models/x"), cache)
    assert changed.identity != found.identity
    assert len(list((cache / "models").iterdir())) == 2


def test_a_uri_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="memory://models/none"):
        resolve(named("memory://models/none"), tmp_path)


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({}, None),
        ({"max_position_embeddings": 64}, 64),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 32}, "max_position_embeddings": 64}, 32),
        ({"max_position_embeddings": 64, "sliding_window": 16}, 64),
        ({"max_position_embeddings": 64, "rope_scaling": {"type": "linear", "factor": 4.0}}, 256),
        ({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, 128),
        ({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 1.0}}, 64),
        ({"max_position_embeddings": 64, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 64),
        ({"max_position_embeddings": 64, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 64),
        (
            {
                "max_position_embeddings": 64,
                "rope_parameters": {"full": {"rope_type": "linear", "factor": 2.0}},
            },
            128,
        ),
        (
            {
                "model_type": "gemma3_text",
                "max_position_embeddings": 64,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            64,
        ),
    ],
)
def test_the_positions_of_a_model_are_counted_as_the_engines_count_them(config, positions):
    assert models.positions_of(config) == positions


def test_an_adapter_that_vllm_cannot_measure_is_known_before_it_starts(tmp_path):
    plain = ResolvedModel("base", save_adapter(tmp_path / "plain"), "a", "base")
    resized = ResolvedModel("base", save_resized(tmp_path / "resized", 10), "b", "base")
    check_adapters("vllm", [plain])
    check_adapters("transformers", [plain, resized])
    with pytest.raises(
        EngineError, match=r"adapts embed_tokens, which vLLM cannot measure; set engine\.type"
    ):
        check_adapters("vllm", [plain, resized])


def test_an_adapter_of_a_rank_above_vllms_is_known_before_it_starts(tmp_path):
    low, high = (
        ResolvedModel("base", save_adapter(tmp_path / f"rank-{rank}", rank=rank), str(rank), "base")
        for rank in (HIGHEST_RANK_OF_VLLM, HIGHEST_RANK_OF_VLLM + 1)
    )
    check_adapters("vllm", [low])
    check_adapters("transformers", [low, high])
    with pytest.raises(EngineError, match=r"rank-513: its rank 513 is above vLLM's 512; set engine\.type"):
        check_adapters("vllm", [low, high])


def test_vllm_takes_the_ranks_that_are_let_through():
    ranks = pytest.importorskip("vllm.config.lora").MaxLoRARanks
    assert max(get_args(ranks)) == HIGHEST_RANK_OF_VLLM

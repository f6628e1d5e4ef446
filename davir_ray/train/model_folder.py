"""The result of a training, as a normal Hugging Face folder: safetensors, the base's tokenizer, generation config."""

import json
import shutil
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from davir_ray import storage
from davir_ray.models.adapter import CONFIG, is_adapter, read_json
from davir_ray.storage.filesystems import filesystem, reaching

FROM_BASE = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)
"""Copied byte for byte: what TRL saves has its padding token in it, and would be another tokenizer."""
LEFT_OUT = ("training_args.bin", "README.md")
"""A pickle, and a model card that knows nothing of this run."""


def finish(folder: Path, base: Path, base_name: str, *, merge: bool) -> None:
    """Make what a trainer saved in `folder` whole.

    base: the folder that training began from; base_name: what the recipe calls it, for an adapter to name.
    """
    if merge and is_adapter(folder):
        _merge(folder, base)
    for name in LEFT_OUT:
        (folder / name).unlink(missing_ok=True)
    for name in FROM_BASE:
        (folder / name).unlink(missing_ok=True)
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    if is_adapter(folder):
        config = read_json(folder / CONFIG) | {"base_model_name_or_path": base_name}
        (folder / CONFIG).write_text(json.dumps(config, indent=2))


def _merge(folder: Path, base: Path) -> None:
    """Replace the adapter in `folder` by the base with the adapter merged into it, in the base's dtype."""
    unset_hf_deepspeed_config()  # under ZeRO 3 transformers would load the base in pieces, and wait for all workers
    dtype = AutoConfig.from_pretrained(base, trust_remote_code=False).dtype or torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
    merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
    shutil.rmtree(folder)
    merged.to(dtype).save_pretrained(folder)


def upload(folder: Path, uri: str) -> None:
    """Copy a model to the run's storage, in the place of an older one; config files go last."""
    storage.delete(uri)
    with reaching(uri):
        fs, path = filesystem(uri)
        fs.makedirs(path, exist_ok=True)
        for file in sorted(folder.iterdir(), key=lambda file: file.suffix == ".json"):
            fs.put_file(str(file), f"{path}/{file.name}")

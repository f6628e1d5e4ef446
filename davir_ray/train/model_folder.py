"""The result of a training, as a normal Hugging Face folder: safetensors, the base's tokenizer, generation config."""

import shutil
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from davir_ray import storage
from davir_ray.adapter import is_adapter

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


def finish(folder: Path, base: Path, tokenizer: Path, *, merge: bool) -> None:
    """Make what a trainer saved in `folder` whole: base and tokenizer are the folders that training began from."""
    if merge and is_adapter(folder):
        _merge(folder, base)
    for name in LEFT_OUT:
        (folder / name).unlink(missing_ok=True)
    for name in FROM_BASE:
        source = next((place / name for place in (tokenizer, base) if (place / name).is_file()), None)
        (folder / name).unlink(missing_ok=True)
        if source is not None:
            shutil.copyfile(source, folder / name)


def _merge(folder: Path, base: Path) -> None:
    """Replace the adapter in `folder` by the base with the adapter merged into it, in the base's dtype."""
    dtype = AutoConfig.from_pretrained(base, trust_remote_code=False).dtype or torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
    merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
    shutil.rmtree(folder)
    merged.to(dtype).save_pretrained(folder)


def upload(folder: Path, uri: str) -> None:
    """Copy a model to the run's storage, in the place of an older one; config files go last."""
    storage.delete(uri)
    fs, path = storage.filesystem(uri)
    fs.makedirs(path, exist_ok=True)
    for file in sorted(folder.iterdir(), key=lambda file: file.suffix == ".json"):
        fs.put_file(str(file), f"{path}/{file.name}")

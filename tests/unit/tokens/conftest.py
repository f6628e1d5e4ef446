"""Loads tiny tokenizers, each family saved once a session."""

from collections.abc import Callable
from pathlib import Path

import pytest

from davir_ray.config import TokensConfig
from davir_ray.tokens.tokenizer import Tokenizer, load_tokenizer
from tests.unit.tokens.families import FAMILIES, save


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    for name, family in FAMILIES.items():
        save(family, root / name)
    return lambda name: root / name


@pytest.fixture(scope="session")
def load(folder) -> Callable[..., Tokenizer]:
    return lambda name, **config: load_tokenizer(str(folder(name)), TokensConfig(**config))

"""Moments beside an adapter: found by the names of its parameters, refused where they do not fit."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from davir_ray.errors import ModelError
from davir_ray.influence.moments import Moments, learning_rate_of, read_moments, write_moments
from davir_ray.models.adapter import MOMENTS
from tests.tiny_adapted import tiny_adapted


@pytest.fixture
def folder(tmp_path):
    model = tiny_adapted(torch.float32)
    model.save_pretrained(tmp_path)
    shapes = {name: one.shape for name, one in load_file(tmp_path / "adapter_model.safetensors").items()}
    first = {name: torch.full(shape, float(at)) for at, (name, shape) in enumerate(sorted(shapes.items()))}
    second = {name: one + 0.5 for name, one in first.items()}
    write_moments(tmp_path, Moments(first, second, 1.5e-5, 2, 40))
    return tmp_path


def stored(folder):
    return load_file(folder / MOMENTS)


def test_moments_come_back_by_name(folder):
    found = read_moments(folder)
    assert (found.learning_rate, found.epoch, found.step) == (1.5e-5, 2, 40)
    assert learning_rate_of(folder) == 1.5e-5
    for at, name in enumerate(sorted(load_file(folder / "adapter_model.safetensors"))):
        assert found.first[name].eq(at).all()
        assert found.second[name].eq(at + 0.5).all()


def test_moments_that_are_missing_or_of_another_shape_are_named(folder):
    tensors = stored(folder)
    name = min(tensors)
    told = {"learning_rate": "1", "epoch": "1", "step": "1"}
    save_file(tensors | {name: tensors[name][:-1].clone()}, folder / MOMENTS, told)
    with pytest.raises(ModelError, match=rf"{MOMENTS}: exp_avg of .* is \[\d+, \d+\]; the adapter has \["):
        read_moments(folder)
    save_file({key: one for key, one in tensors.items() if key != name}, folder / MOMENTS, told)
    with pytest.raises(ModelError, match="is not there"):
        read_moments(folder)


def test_a_folder_without_moments_or_what_they_say_is_refused(folder):
    save_file(stored(folder), folder / MOMENTS, {"epoch": "1"})
    with pytest.raises(ModelError, match="does not say learning_rate, step"):
        read_moments(folder)
    (folder / MOMENTS).unlink()
    with pytest.raises(ModelError, match="has no moments"):
        read_moments(folder)

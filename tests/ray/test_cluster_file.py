"""cluster.yaml is a file that Ray's cluster launcher accepts."""

from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.ray


def test_the_launcher_accepts_the_cluster_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    path = Path(__file__).resolve().parents[2] / "cluster.yaml"
    config = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert config["available_node_types"]["gpu_worker"]["min_workers"] == 0

"""The scores that measure rows by a target, against numbers worked out by hand."""

import numpy as np
import pyarrow as pa
import pytest

from davir_ray.config import ScoreConfig
from davir_ray.schema import EXAMPLES, Need, Status, View
from davir_ray.scores import SCORES
from davir_ray.scores.assemble import Measurements, assemble, measured_of
from davir_ray.scores.score import Measured, TargetMeasured
from tests.measured import losses_table

CONFIG = ScoreConfig()
NAN = float("nan")


def measured(columns, tokens, target=None):
    count = len(tokens)
    return Measured(columns, {view: np.array(tokens) for view in View}, np.array([b"x" * 16] * count), target)


def cosines(*rows):
    return pa.table({"cosines": pa.array(rows, pa.list_(pa.float64()))})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, name) for name in ("rose", "less", "gradient_cosine")),
        ("rose_projected", "projected_step"),
        ("less_projected", "projected_step"),
    ],
)
def test_checkpoints_weigh_as_their_learning_rates_and_the_best_subtask_counts(name, kind):
    columns = {
        Need(kind, "warmup-0", View.RESPONSE): cosines([0.4, -0.2], [0.1, 0.3], None),
        Need(kind, "warmup-1", View.RESPONSE): cosines([0.0, 0.6], [0.1, -0.1], [0.5, 0.5]),
    }
    rows = measured(columns, [1, 1, 1], TargetMeasured(("a", "b"), (3e-5, 1e-5), {}))
    score = SCORES[name]
    parts = score.parts(rows, CONFIG)
    np.testing.assert_allclose(parts["a"], [0.3, 0.1, NAN])
    np.testing.assert_allclose(parts["b"], [0.0, 0.2, NAN], atol=1e-12)
    np.testing.assert_allclose(score.compute(rows, CONFIG), [0.3, 0.2, NAN])


def test_checkpoints_are_taken_by_number_and_not_by_name():
    needs = [Need("rose", f"warmup-{index}", View.RESPONSE) for index in range(12)]
    rows = measured({need: cosines([0.0]) for need in reversed(needs)}, [1])
    assert rows.series(Need("rose", "warmup", View.RESPONSE)) == needs


def test_tov_is_the_mean_fall_of_the_loss_and_color_filter_that_of_one_pair():
    def loss(model, *values):
        return {Need("loss", model, View.RESPONSE): losses_table(list(values))}

    series = loss("prior-0", 8.0, 4.0) | loss("prior-1", 6.0, 4.0)
    series |= loss("target-0", 4.0, 5.0) | loss("target-1", 4.0, NAN)
    assert SCORES["tov"].compute(measured(series, [2, 2]), CONFIG).tolist() == pytest.approx(
        [1.5, NAN], nan_ok=True
    )
    pair = loss("prior", 8.0, 4.0) | loss("target", 4.0, 5.0)
    assert SCORES["color_filter"].compute(measured(pair, [2, 4]), CONFIG).tolist() == [2.0, -0.25]


def test_rds_takes_the_nearest_row_of_each_subtask():
    columns = {
        Need("representation", "base", View.RESPONSE): pa.table({"vector": [[3.0, 4.0], None, [0.0, -2.0]]})
    }
    vectors = {"a": np.array([[1, 0], [0, 1]], np.float32), "b": np.array([[-5, 0]], np.float32)}
    target = TargetMeasured(("a", "b"), (), {"base": vectors})
    rows = measured(columns, [1, 1, 1], target)
    parts = SCORES["rds"].parts(rows, CONFIG)
    np.testing.assert_allclose(parts["a"], [0.8, NAN, 0.0], atol=1e-12)
    np.testing.assert_allclose(parts["b"], [-0.6, NAN, 0.0], atol=1e-12)
    np.testing.assert_allclose(SCORES["rds"].compute(rows, CONFIG), [0.8, NAN, 0.0], atol=1e-12)


def test_a_row_that_one_checkpoint_has_not_measured_is_told_and_ends_nothing():
    row = {"row": 0, "example_id": bytes(16), "source": "a", "group": "a", "status": "ok"}
    sequence = {"example": [0], "view": ["response"], "sequence_id": [b"s" * 16], "num_tokens": [2]}
    types = {"example": pa.int32(), "num_tokens": pa.int32()}
    found = Measurements(
        pa.table({name: pa.array(values, types.get(name)) for name, values in sequence.items()}),
        {("rose", "warmup-0"): cosines([0.1]), ("rose", "warmup-1"): cosines(None)},
        {("rose", "warmup-0"): {}, ("rose", "warmup-1"): {b"s" * 16: "broke"}},
    )
    needs = tuple(Need("rose", f"warmup-{index}", View.RESPONSE) for index in range(2))
    examples = pa.Table.from_pylist([row], schema=EXAMPLES)
    target = TargetMeasured(("a",), (1.0, 1.0), {})
    table = assemble(examples, found, measured_of(examples, found, needs, target), SCORES["rose"], CONFIG)
    assert table["status"].to_pylist() == [Status.ENGINE_ERROR]
    assert table["reason"].to_pylist() == ["warmup-1: broke"]
    assert table["score_a"].to_pylist() == [None]


def test_rose_alone_asks_for_pairs():
    assert {name for name, score in SCORES.items() if score.of_target_pairs} == {"rose", "rose_projected"}
    of_target = {name for name, score in SCORES.items() if score.reads_target}
    assert of_target == {"rose", "less", "gradient_cosine", "rose_projected", "less_projected", "rds"}

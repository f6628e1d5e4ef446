"""Measurements beside their examples."""

import pyarrow as pa
import pytest

from davir_ray.config import ScoreConfig
from davir_ray.schema import EXAMPLES, Need, View
from davir_ray.scores import SCORES
from davir_ray.scores.assemble import Measurements, assemble, measured_of
from tests.measured import losses_table

NAN = float("nan")


@pytest.mark.parametrize(
    ("failed", "status", "score"),
    [(View.COMPLETION, "ok", 2.0), (View.RESPONSE, "engine_error", None)],
)
def test_a_sequence_that_only_an_export_asks_for_costs_no_row_its_rank(failed, status, score):
    row = {"row": 0, "example_id": bytes(16), "source": "a", "group": "a", "status": "ok"}
    views = [View.RESPONSE, View.COMPLETION]
    names = {view: str(view).encode().ljust(16)[:16] for view in views}
    sequences = pa.table(
        {
            "example": pa.array([0, 0], pa.int32()),
            "view": [str(view) for view in views],
            "sequence_id": [names[view] for view in views],
            "num_tokens": pa.array([2, 2], pa.int32()),
        }
    )
    asked = ("loss", "base")
    columns = {asked: losses_table([NAN if view == failed else 4.0 for view in views])}
    found = Measurements(sequences, columns, {asked: {names[failed]: "broke"}})
    needs = tuple(Need("loss", "base", view) for view in views)
    examples = pa.Table.from_pylist([row], schema=EXAMPLES)
    measured = measured_of(examples, found, needs)
    table = assemble(examples, found, measured, SCORES["base_loss"], ScoreConfig())
    assert (table["status"][0].as_py(), table["frozen_chosen_loss"][0].is_valid) == (
        status,
        failed != View.COMPLETION,
    )
    assert (table["score"][0].as_py() is None) == (score is None)

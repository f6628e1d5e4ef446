"""The scores of single tokens, against plain Python over the same numbers."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.config import ScoreConfig
from davir_ray.schema import View
from davir_ray.scores import SCORES
from davir_ray.scores.rsr import RANKS
from davir_ray.scores.s_ifd import ALONE, GIVEN
from davir_ray.scores.score import Measured

LOSSES = pa.list_(pa.float32())


def rows_of(given, alone) -> Measured:
    """Rows with these token losses in both views; None for a row that has none."""
    count = len(given)
    columns = {
        GIVEN: pa.table({"losses": pa.array(given, LOSSES)}),
        ALONE: pa.table({"losses": pa.array(alone, LOSSES)}),
    }
    tokens = {view: np.ones(count, dtype=np.int64) for view in View}
    return Measured(columns, tokens, np.array([b"%016d" % index for index in range(count)]))


def s_ifd(blocks, share):
    """Score blocks of rows as the ranking does: rounds of counts over all blocks, then each block."""
    score, config = SCORES["s_ifd"], ScoreConfig(name="s_ifd", token_share=share)
    surveyed = ()
    for _ in range(score.survey.rounds):
        surveyed = (*surveyed, sum(score.survey.count(block, config, surveyed) for block in blocks))
    return np.concatenate([score.compute(block, config, surveyed) for block in blocks])


def plain_s_ifd(given, alone, share):
    """The same, by sorting all deltas of the corpus."""
    pairs = [
        (one, two) if one and two and len(one) == len(two) else ((), ())
        for one, two in zip(given, alone, strict=True)
    ]
    deltas = [[np.float32(a) - np.float32(b) for a, b in zip(one, two, strict=True)] for one, two in pairs]
    every = sorted((abs(delta) for row in deltas for delta in row), reverse=True)
    if not every:
        return [math.nan] * len(given)
    threshold = every[max(1, round(share * len(every))) - 1]
    kept = [[float(delta) for delta in row if abs(delta) >= threshold] for row in deltas]
    return [math.exp(sum(row) / len(row)) if row else math.nan for row in kept]


values = st.floats(0, 20, width=32)
row = st.integers(1, 6).flatmap(
    lambda length: st.tuples(
        st.lists(values, min_size=length, max_size=length), st.lists(values, min_size=length, max_size=length)
    )
)
rows = st.lists(
    st.one_of(row, st.tuples(st.none(), st.just([1.0])), st.just(([1.0, 2.0], [1.0]))),
    min_size=1,
    max_size=12,
)


@given(rows, st.sampled_from([0.01, 0.25, 0.5, 0.75, 1.0]), st.integers(1, 12))
def test_s_ifd_is_the_mean_over_the_tokens_above_the_corpus_s_threshold(drawn, share, cut):
    given_losses, alone = [list(side) for side in zip(*drawn, strict=True)]
    whole = rows_of(given_losses, alone)
    expected = plain_s_ifd(given_losses, alone, share)
    assert s_ifd([whole], share) == pytest.approx(expected, rel=1e-9, nan_ok=True)
    blocks = [rows_of(given_losses[at : at + cut], alone[at : at + cut]) for at in range(0, len(drawn), cut)]
    assert np.array_equal(s_ifd(blocks, share), s_ifd([whole], share), equal_nan=True)


def test_s_ifd_of_all_tokens_is_ifd_ppl():
    given_losses, alone = [[1.0, 2.0], [0.5]], [[1.5, 3.0], [0.25]]
    assert s_ifd([rows_of(given_losses, alone)], 1.0) == pytest.approx([math.exp(-0.75), math.exp(0.25)])


def test_rsr_is_clipped_ranks_a_nat():
    columns = pa.table(
        {
            "loss": pa.array([6.0, None, 1e-4]),
            "ranks": pa.array([[1, 100, 7], None, [1, 1, 1]], pa.list_(pa.uint8())),
        }
    )
    tokens = {view: np.array([3, 0, 3]) for view in View}
    measured = Measured({RANKS: columns}, tokens, np.array([b"a" * 16, b"b" * 16, b"c" * 16]))
    found = SCORES["rsr"].compute(measured, ScoreConfig(name="rsr"))
    assert found[0] == pytest.approx(108 / 6)
    assert np.isnan(found[1:]).all()  # nothing measured; a mean loss below score.min_loss

import numpy as np

from davir_ray.planning.reasons import Reason, model_reason, row_reasons
from davir_ray.runs.changes import Change
from tests.records import facts

RECORD = facts(measurements={"base": "/m/fb", "reference-0": "/m/f0", "reference-1": "/m/f1"})
TOKENS, REFERENCE, BASE = (Change(what=what, detail="x") for what in ("tokens", "reference", "base"))


def keys(text):
    return np.array([letter.encode() * 16 if letter != "." else b"" for letter in text], dtype="S16")


def test_rows_are_new_changed_or_as_they_were():
    assert row_reasons(keys("abcd"), keys(".bxx"), ()) == {
        Reason.NEW_ROW: 1,
        Reason.NOT_MEASURED: 1,
        Reason.CHANGED_ROW: 2,
    }


def test_a_tokens_setting_explains_the_rows_that_are_as_they_were_and_no_others():
    assert row_reasons(keys("abc"), keys("ab."), [TOKENS]) == {Reason.NEW_TOKENS: 2, Reason.NEW_ROW: 1}


def test_without_word_of_the_last_rows_new_and_changed_are_one():
    assert row_reasons(keys("abc"), None, [TOKENS]) == {Reason.NEW_OR_CHANGED: 3}
    assert row_reasons(keys(""), None, ()) == row_reasons(keys(""), keys(""), ()) == {}


def test_a_model_without_measurements_is_explained_by_the_last_run():
    assert model_reason("base", "base", "/m/new", None, ()) == Reason.FIRST_RUN
    assert model_reason("base", "base", "/m/fb", RECORD, ()) == Reason.EMPTY_STORE
    assert model_reason("base", "base", "/m/new", RECORD, [BASE, REFERENCE]) == Reason.NEW_BASE
    assert model_reason("reference", "reference", "/m/new", RECORD, [REFERENCE]) == Reason.NEW_REFERENCE
    assert model_reason("reference", "reference", "/m/new", RECORD, [TOKENS]) == Reason.NEW_ENGINE
    assert (
        model_reason("reference", "reference", "/m/new", facts(measurements={"base": "/m/fb"}), ())
        == Reason.NOT_MEASURED
    )


def test_another_kind_of_a_model_is_not_another_engine():
    assert model_reason("base", "base-token_loss", "/m/new", RECORD, ()) == Reason.NOT_MEASURED


def test_another_target_explains_what_was_aimed_at_the_last_one():
    record, target = facts(measurements={"warmup-0-rose": "/m/a"}), Change(what="target_rows", detail="x")
    assert model_reason("warmup-0", "warmup-0-rose", "/m/new", record, [target]) == Reason.NEW_TARGET
    stored = model_reason("warmup-0", "warmup-0-projected_step", "/m/new", record, [target])
    assert stored == Reason.NOT_MEASURED

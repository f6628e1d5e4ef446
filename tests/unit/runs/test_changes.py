import pytest

from davir_ray.recipe import parse_recipe
from davir_ray.runs.changes import changes
from davir_ray.runs.record import EngineUsed
from tests.records import facts

RECORD = facts(engine=EngineUsed(type="hash", dtype="float32", reason=""))
TREE = {"corpus": {"paths": "x"}, "models": {"base": "b", "reference": "r"}}


def recipe(**changed):
    return parse_recipe(TREE | changed, "r").model_dump(mode="json")


def details(record=None, **changed):
    found = changes(RECORD, RECORD.model_copy(update=record or {}), recipe(), recipe(**changed))
    return [(one.what, one.detail) for one in found]


def test_equal_runs_differ_in_nothing():
    assert details() == []
    assert (
        details(nightly={"max_coreset_change": 0.1}, engine={"replicas": 3}, export={"formats": ["ids"]})
        == []
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"tokens": {"template": "plain"}}, [("tokens", 'tokens.template: "chat" -> "plain"')]),
        (
            {"score": {"name": "rho", "seed": 3}},
            [("score", 'score.name: "davir" -> "rho"'), ("score", "score.seed: 0 -> 3")],
        ),
        ({"corpus": {"paths": "x", "limit": 5}}, [("corpus", "corpus.limit: null -> 5")]),
    ],
)
def test_a_setting_is_told_from_what_to_what(changed, expected):
    assert details(**changed) == expected


def test_the_rules_are_told_as_a_whole():
    ((what, detail),) = details(select=[{"type": "count", "count": 3}])
    assert what == "select"
    assert detail.endswith('-> [{"type": "count", "count": 3}]')


def test_models_are_told_by_their_content():
    ((what, detail),) = details({"models": RECORD.models | {"reference": ("s" * 32, "t" * 32)}})
    assert (what, detail) == ("reference", f"models.reference: {'r' * 12} -> {'s' * 12}, {'t' * 12}")
    assert details({"models": {"base": RECORD.models["base"], "reference": ()}})[0][1].endswith("-> none")


def test_an_engine_is_judged_by_its_numbers():
    assert details({"engine": EngineUsed(type="vllm", dtype="float32", reason="")}) == [
        ("engine", "engine: hash float32 -> vllm float32")
    ]
    other = {"base": "/store/measurements/gb", "reference": "/store/measurements/gr"}
    assert details({"measurements": other}) == [("engine", "engine: another version or setting of it")]
    moved = {"base": "s3://store/measurements/fb", "reference": "s3://store/measurements/fr"}
    assert details({"measurements": moved}) == []


def test_a_new_model_under_its_own_fingerprint_is_no_other_engine():
    models = {"base": RECORD.models["base"], "reference": ("s" * 32,)}
    measurements = {"base": "/store/measurements/fb", "reference": "/store/measurements/fs"}
    assert [what for what, _ in details({"models": models, "measurements": measurements})] == ["reference"]


def test_an_edited_score_is_another_score():
    assert details({"score_code": "2"}) == [("score", "the source of davir")]


def test_a_setting_that_one_version_did_not_know_is_no_change():
    old = recipe()
    del old["tokens"]["score_on"]
    assert changes(RECORD, RECORD, old, recipe()) == ()
    del old["select"]
    assert changes(RECORD, RECORD, old, recipe()) == ()

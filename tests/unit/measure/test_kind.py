"""What kinds may have beside the members of `Kind`: a user's own as those that there are."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest

from davir_ray import storage
from davir_ray.errors import DamagedPart, ModelError
from davir_ray.influence.target import Target
from davir_ray.inputs import Inputs
from davir_ray.logprobs.kinds import LossKind
from davir_ray.measure.kind import KINDS, Aimed, ChecksModel, ReadBeside, Shared, shared
from davir_ray.measure.measurement import Measurement
from davir_ray.models.resolve import ResolvedModel
from davir_ray.recipe import parse_recipe
from davir_ray.schema import Need, View
from davir_ray.scores.score import BASE, Score
from davir_ray.store.measurements import MeasurementStore
from davir_ray.target.rows import FewShot


class Own:
    """As much of a kind as is asked for here."""

    name, implies = "own", ()

    def __init__(self, seen=None):
        self.seen = seen

    def check_model(self, model):
        raise ModelError(f"{model.model_path}: not this one")

    def aimed(self, target):
        return Own(target)

    def ground_of(self, choice, config, model, max_length):
        return b"ground"

    def grounded(self, data):
        if data != b"ground":
            raise ValueError("is no ground")
        return Own(data)


@pytest.fixture
def own(monkeypatch):
    module = ModuleType("own_kinds")
    module.KIND = Own()
    monkeypatch.setitem(sys.modules, "own_kinds", module)
    return "own_kinds:KIND"


def test_the_kinds_that_there_are_have_what_they_say():
    def having(protocol):
        return {name for name, kind in KINDS.items() if isinstance(kind, protocol)}

    assert having(Aimed) == {"rose", "less", "gradient_cosine"}
    assert having(ChecksModel) == having(Aimed) | {"projected_step"}
    assert having(ReadBeside) == {"projected_step"}


def inputs_of(kind, few_shot=None):
    """Put together as much of a run as knows of a kind."""
    recipe = parse_recipe(
        {"corpus": {"paths": "x"}, "models": {"base": "b"}, "score": {"name": "base_loss"}}, "r"
    )
    models = {"base": (ResolvedModel("b", None, "id", "b"),)}
    needs = (Need(kind, "base", View.RESPONSE),)
    return Inputs(recipe, None, None, models, None, needs, few_shot)


def test_a_kind_of_a_user_s_own_checks_its_models_and_is_aimed(own):
    with pytest.raises(ModelError, match="not this one"):
        inputs_of(own).check_checkpoints()
    assert inputs_of(own).kind(own).seen is None
    assert inputs_of(own, FewShot((), {}, {})).kind(own).seen == Target(())
    score = Score("mine", "", (Need(own, "base", View.RESPONSE),), "none", print)
    assert score.reads_target
    assert not replace(score, needs=(BASE,)).reads_target


def test_a_kind_of_a_user_s_own_is_grounded_before_it_measures(tmp_path):
    kind = Own()
    stores = (MeasurementStore(str(tmp_path), kind),)
    none = dict.fromkeys(("models", "engine", "choice", "prepared"))
    sizes = {
        "max_length": 1,
        "chunk_tokens": 1,
        "identity": "id",
        "adapted": False,
        "folder": "",
        "views": (),
    }
    one = Measurement(model="base", kind=kind, fold=None, stores=stores, **none, **sizes)
    storage.write_atomic(one.directions_uri, b"ground")
    assert one.ready_kind().seen == b"ground"
    storage.write_atomic(one.directions_uri, b"other")
    with pytest.raises(DamagedPart, match="is no ground"):
        one.ready_kind()


class OpenedOtherwise(LossKind):
    """Derived from a kind that is shared, with another measurer."""

    def open(self, choice, config, model, max_length):
        return None


class SharedAgain(OpenedOtherwise):
    """Opens itself for several models."""

    def open_for(self, choice, config, models, max_length):
        return None


class AimedToo(Own, LossKind):
    """Is about the target's rows."""

    def __init__(self):
        super().__init__()


def test_a_kind_is_shared_by_models_if_it_says_so_of_the_way_it_is_opened():
    alone, again = OpenedOtherwise("own"), SharedAgain("own")
    assert {name for name, kind in KINDS.items() if shared(kind)} == {
        "loss",
        "token_loss",
        "token_rank",
        "token_entropy",
    }
    assert shared(Own()) is None
    assert shared(alone) is None
    assert shared(again) is again
    assert isinstance(AimedToo(), Shared)
    assert shared(AimedToo()) is None

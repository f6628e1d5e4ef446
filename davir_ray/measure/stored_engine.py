"""Which engine measured what the store holds of models that are not here: known by the numerics in model.json."""

from collections.abc import Iterable
from typing import Any

from davir_ray import storage
from davir_ray.config import EngineConfig
from davir_ray.errors import NotMeasured
from davir_ray.logprobs.choice import Choice, choice_that_gave
from davir_ray.measure.kind import implying
from davir_ray.storage.layout import StoreLayout
from davir_ray.store.holdings import description_in

HOW = "`davir score-table import` brings measurements into a store"


def stored_engine(store: str, config: EngineConfig, passes: Iterable[tuple[str, str]]) -> Choice:
    """Return the engine that measured all of some passes (kind, identity of the model), as the store tells.

    Raises `NotMeasured` where the store holds nothing of one of them by the engine that is asked for, or of several.
    """
    folders = storage.list_folders(StoreLayout(store).measurements)
    descriptions = [found for folder in folders if (found := description_in(folder))]
    common: list[Choice] | None = None
    for kind, identity in passes:
        held = list(dict.fromkeys(_choices(descriptions, config, kind, identity)))
        if not held:
            raise NotMeasured(_nothing(store, config, descriptions, kind, identity))
        common = held if common is None else [one for one in common if one in held]
        if not common:
            raise NotMeasured(
                f"{store}: no one engine measured all models that are known by their identity; {HOW}"
            )
    if common is None:
        raise NotMeasured(
            f"{store}: nothing is to be measured, and the models are known by their identity alone"
        )
    if len(common) > 1:
        raise NotMeasured(
            f"{store}: holds what several engines measured of these models ({'; '.join(map(_told, common))}); say "
            "which by engine.type, engine.dtype and engine.device"
        )
    return common[0]


def _choices(
    descriptions: Iterable[dict[str, Any]], config: EngineConfig, kind: str, identity: str
) -> Iterable[Choice]:
    for one in descriptions:
        if one["model"] == identity and one["kind"] in implying(kind):
            choice = choice_that_gave(one["numerics"], config)
            if choice is not None:
                yield choice


def _told(choice: Choice) -> str:
    return f"{choice.type} {choice.version}".strip() + f", {choice.dtype} on {choice.device}"


def _nothing(
    store: str, config: EngineConfig, descriptions: Iterable[dict[str, Any]], kind: str, identity: str
) -> str:
    """Say what the store has of a model instead of what is asked for."""
    others = [one["numerics"] for one in descriptions if one["model"] == identity]
    if not others:
        return f"{store}: holds nothing of the model {identity}, which is known by its identity alone; {HOW}"
    asked = (
        f"engine.type {config.type}, dtype {config.dtype}, device {config.device}, tensor_parallel_size "
        f"{config.tensor_parallel_size}, engine_args {config.engine_args}"
    )
    return (
        f"{store}: holds no {kind} of the model {identity} by the engine that the recipe asks for ({asked}), "
        f"but by {'; '.join(map(str, others))}"
    )

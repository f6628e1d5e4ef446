"""Whether the cluster has nodes for what a stage will ask of it, and waiting for those that it starts on demand.

Ray itself waits for ever, and says so in a line that is easily missed.
"""

import time
from collections.abc import Mapping, Sequence

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from davir_ray.config import EngineConfig
from davir_ray.errors import DavirError, EngineError
from davir_ray.logprobs.choice import Choice
from davir_ray.progress import duration, say

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_LINES = 60.0
Bundle = Mapping[str, float]
"""What one process asks of a node: `CPU` and `GPU`, as numbers."""


def await_room(what: str, bundle: Bundle, count: int, wait_seconds: float, error: type[DavirError]) -> None:
    """Return once the nodes of the cluster can hold `count` bundles, whoever uses them now.

    what: who asks, by the setting, for messages. Raises `error` if they cannot within `wait_seconds`; meanwhile the
    cluster is asked for them, and a line a minute says so.
    """
    if room(bundle, _nodes()) >= count:
        return
    if not wait_seconds:
        raise error(
            f"{_lack(what, bundle, count)}; its wait_seconds waits for a cluster that starts nodes on demand"
        )
    asked = placement_group([dict(bundle)] * count)
    try:
        _wait(what, bundle, count, wait_seconds, error)
    finally:
        remove_placement_group(asked)


def await_engine(config: EngineConfig, choice: Choice) -> None:
    """Wait for room for an engine on GPUs, as long as the recipe allows. Raises `EngineError` if there comes none.

    On CPUs an engine takes what a node has, so there is always room.
    """
    if choice.device == "cuda":
        bundle = {"CPU": 1.0, "GPU": float(config.tensor_parallel_size)}
        await_room("engine.device: cuda", bundle, 1, config.wait_seconds, EngineError)


def _wait(what: str, bundle: Bundle, count: int, wait_seconds: float, error: type[DavirError]) -> None:
    started = said = time.monotonic()
    say(f"waiting at most {duration(wait_seconds)}: {_lack(what, bundle, count)}")
    while room(bundle, _nodes()) < count:
        now = time.monotonic()
        if now - started >= wait_seconds:
            raise error(
                f"{_lack(what, bundle, count)}, after {duration(now - started)} of waiting (wait_seconds)"
            )
        if now - said >= SECONDS_BETWEEN_LINES:
            said = now
            say(f"still waiting, for {duration(now - started)}: {_lack(what, bundle, count)}")
        time.sleep(min(SECONDS_BETWEEN_LOOKS, wait_seconds))


def room(bundle: Bundle, nodes: Sequence[Bundle]) -> int:
    """Count the bundles that fit on nodes of these sizes."""
    asked = {name: amount for name, amount in bundle.items() if amount}
    return sum(min(int(node.get(name, 0) / amount) for name, amount in asked.items()) for node in nodes)


def _nodes() -> list[Bundle]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _lack(what: str, bundle: Bundle, count: int) -> str:
    """Say what is asked for, and what there is."""
    nodes = _nodes()
    has = ", ".join(f"{sum(node.get(name, 0) for node in nodes):g} {name}s" for name in ("CPU", "GPU"))
    each = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items() if amount)
    return (
        f"{what}: asks for {count} x {each}, each on one node, and the cluster has room for {room(bundle, nodes)} "
        f"({len(nodes)} nodes with {has} in all)"
    )

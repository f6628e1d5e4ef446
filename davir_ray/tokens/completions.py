"""The two sequences that TRL's DPO trains on for an exported pair: DPO's frozen log-probabilities are sums over these.

TRL renders the turns that both sides share (with the header of an answer), and each whole side, with the model's own
chat template. The prompt is the ids that all three begin with; every token behind it counts, what the template writes
after the end of the last turn too. Our own mask (see `rendering`) may count earlier answers, and stops where a turn
ends, so its sums are other numbers. Cut at `max_length`, as TRL cuts with the same one.
"""

from collections.abc import Sequence

import numpy as np

from davir_ray.corpus.example import Example, Message, shared_turns
from davir_ray.errors import RowError
from davir_ray.schema import COMPLETIONS, View
from davir_ray.tokens.rendering import Ids, given
from davir_ray.tokens.tokenizer import Tokenizer


def completions(tokenizer: Tokenizer, example: Example, max_length: int) -> dict[View, tuple[Ids, int]]:
    """Return the ids of both sides, and where the completion begins in them.

    Empty where the template cannot render the prompt alone, or a side has no token of its own within `max_length`.
    """
    if example.messages is None or example.rejected is None:
        return {}
    try:
        prompt = _ids(tokenizer, example, example.messages[: shared_turns(example)], prompt=True)
        sides = [_ids(tokenizer, example, side) for side in (example.messages, example.rejected)]
    except RowError:
        return {}
    first = max(1, min(_common(prompt, side) for side in sides))
    cut = [side[:max_length] for side in sides]
    if any(len(side) <= first for side in cut):
        return {}
    return {view: (side, first) for view, side in zip(COMPLETIONS, cut, strict=True)}


def _ids(tokenizer: Tokenizer, example: Example, turns: Sequence[Message], prompt: bool = False) -> Ids:
    messages = given(tokenizer, turns, example.tools)
    text, _ = tokenizer.chat(messages, example.tools, prompt, example.chat_template_kwargs)
    return tokenizer.encode(text)[0]


def _common(one: Ids, other: Ids) -> int:
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length

"""What the doctor says of one thing."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    state: `ok`; `absent` for what is not there and is not needed; `wrong`. found: what is there, in words.
    problem: what is wrong with it, or what it would be for. mend: the command, or in words the step, that mends it.
    """

    name: str
    state: Literal["ok", "absent", "wrong"]
    found: str
    problem: str = ""
    mend: str = ""

"""What a row takes in the store under each kind of loss: one part of random values, as an engine would give them.

python -m benchmarks.store_bytes
"""

import tempfile
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.logprobs.kinds import LOSS, OF_TOKENS, TOKEN_ENTROPY, TOKEN_LOSS, TOKEN_RANK, LossKind
from davir_ray.store.measurements import MeasurementStore

ROWS = 2_000
KINDS = (LOSS, TOKEN_LOSS, TOKEN_RANK, TOKEN_ENTROPY)


def measured(tokens: int) -> pa.Table:
    """Make measurements of every kind for ROWS sequences of so many counted tokens."""
    draw = np.random.default_rng(tokens)
    values: dict[str, NDArray[Any]] = {
        "losses": draw.gamma(1.0, 1.5, (ROWS, tokens)).astype(np.float32),
        "ranks": draw.integers(1, 101, (ROWS, tokens)).astype(np.uint8),
        "entropies": draw.gamma(2.0, 1.0, (ROWS, tokens)).astype(np.float32),
    }
    lists = {name: pa.array(list(values[name]), pa.list_(type)) for name, type in OF_TOKENS.items()}
    loss = values["losses"].sum(axis=1, dtype=np.float64)
    return pa.table({"loss": loss, "num_tokens": pa.array([tokens] * ROWS, pa.int32()), **lists})


def bytes_a_row(kind: LossKind, table: pa.Table) -> float:
    """Write one part of a kind, and return its size for each row."""
    ids = np.random.default_rng(0).integers(0, 256, (ROWS, 16), dtype=np.uint8).view("S16").reshape(-1)
    with tempfile.TemporaryDirectory() as folder:
        store = MeasurementStore(folder, kind)
        store.write(ids, table)
        return sum(part.size for part in store.parts()) / ROWS


def main() -> None:
    """Print a table."""
    print("| tokens a row | " + " | ".join(kind.name for kind in KINDS) + " |")
    print("| --: |" + " --: |" * len(KINDS))
    for tokens in (20, 100, 500):
        table = measured(tokens)
        print(f"| {tokens} | " + " | ".join(f"{bytes_a_row(kind, table):.0f}" for kind in KINDS) + " |")


if __name__ == "__main__":
    main()

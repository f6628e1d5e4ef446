"""What all tests on a GPU measure, and the truth about it."""

import numpy as np
import pytest

from davir_ray.logprobs.engine import TokenSequence
from tests.gpu.real_model import english, one_row_at_a_time


@pytest.fixture(scope="session")
def sequences() -> list[TokenSequence]:
    return english(96, 900)


@pytest.fixture(scope="session")
def expected(sequences) -> list[np.ndarray]:
    return one_row_at_a_time(sequences)

import pytest

from davir_ray.errors import EngineError
from davir_ray.logprobs.vllm.limits import LOGIT_BYTES, await_room, batch_tokens, cache_bytes, spare_gpu_bytes

GIB = 2**30
VOCABULARIES = [32_000, 49_152, 128_256, 151_936, 262_144]


@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize("max_length", [128, 2048, 8192, 131_072])
@pytest.mark.parametrize("spare_bytes", [1 * GIB, 2 * GIB, 6 * GIB, 10 * GIB])
def test_the_logits_of_a_step_always_fit(vocab_size, max_length, spare_bytes):
    tokens = batch_tokens(
        vocab_size=vocab_size, max_length=max_length, spare_bytes=spare_bytes, ceiling=16_384
    )
    # V1 holds the rows of one sequence, V2 at most 1,024 rows of any: neither more than a step has.
    v1, v2 = min(tokens, max_length), min(tokens, 1024)
    assert max(v1, v2) * vocab_size * LOGIT_BYTES <= spare_bytes
    assert 128 <= tokens <= 16_384


def test_short_sequences_leave_the_step_large():
    limits = {"vocab_size": 128_256, "spare_bytes": 6 * GIB, "ceiling": 16_384}
    assert batch_tokens(max_length=2048, **limits) == 16_384
    assert batch_tokens(max_length=8192, **limits) == 4096  # 6 GiB / (128,256 x 12 B) = 4,185 rows


def test_a_device_with_no_room_is_refused_with_the_setting_to_change():
    with pytest.raises(EngineError, match="gpu_memory_utilization"):
        batch_tokens(vocab_size=262_144, max_length=512, spare_bytes=GIB // 4, ceiling=4096)


def test_a_fraction_of_what_vllm_leaves_is_for_logits():
    assert spare_gpu_bytes(80 * GIB, 0.85) == pytest.approx(6 * GIB, rel=1e-9)


SHAPE = {"layers": 2, "heads": 3, "head_size": 4, "item_bytes": 4}
A_TOKEN = 2 * 2 * 3 * 4 * 4


@pytest.mark.parametrize(
    ("max_length", "step_tokens", "least"), [(100_000, 2048, 2 * 100_001), (512, 16_384, 4 * 16_384)]
)
def test_the_cache_holds_four_steps_and_the_longest_sequence_twice(max_length, step_tokens, least):
    size = cache_bytes(**SHAPE, max_length=max_length, step_tokens=step_tokens)
    assert least <= size / A_TOKEN <= least + 256


def test_memory_that_another_process_gives_back_is_waited_for():
    shares = iter([0.1, 0.5, 0.9, 0.0])
    await_room(lambda: next(shares), 0.85, seconds=60, pause=0)
    assert next(shares) == 0.0, "it asks no more once there is room"


def test_memory_that_stays_taken_is_waited_for_no_longer_than_said():
    await_room(lambda: 0.1, 0.85, seconds=0.05, pause=0.01)

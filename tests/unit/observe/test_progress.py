import pytest

from davir_ray.observe.progress import data_size, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.6, "1m 00s"), (3599, "59m 59s"), (3600, "1h 00m"), (86399, "23h 59m"), (93600, "1d 02h")],
)
def test_seconds_are_written_as_people_say_them(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (52e6, "52.0 MB"), (3.2e15, "3200.0 TB")],
)
def test_bytes_are_written_as_people_say_them(count, text):
    assert data_size(count) == text

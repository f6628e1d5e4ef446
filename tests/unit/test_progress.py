import pytest

from davir_ray.progress import Progress, data_size, duration


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


def test_a_line_tells_speed_rows_volume_and_what_is_left():
    progress = Progress("measure base", 1000, "tokens", started=0.0)
    progress.add(250, rows=50, size=2000)
    assert progress.line(5.0) == "250 of 1,000 tokens (25%), 50 tokens/s, 10 rows/s, 2.0 kB, 15s left"
    progress.add(750)
    assert progress.line(10.0) == "1,000 of 1,000 tokens (100%), 100 tokens/s, 5.0 rows/s, 2.0 kB"


def test_before_anything_is_done_a_line_divides_by_nothing():
    assert Progress("rank", 10, "rows", started=0.0).line(0.0).startswith("0 of 10 rows (0%)")

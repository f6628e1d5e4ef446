import threading

import pytest

from davir_ray.train import ray_fit
from davir_ray.train.metrics import write_metrics
from davir_ray.train.ray_fit import progress_line


def line(step, *, of=10, first=1, seconds=0.0, **values):
    return progress_line({"step": step, "max_steps": of, **values}, first, seconds)


def test_the_first_entry_has_no_rate_yet():
    assert line(1, loss=0.69314, learning_rate=2e-5) == "step 1 of 10, loss 0.6931"


def test_the_time_left_goes_by_the_steps_since_this_start():
    # 2 steps took 60 s, 6 are left
    assert line(4, first=2, seconds=60.0, loss=1.5) == "step 4 of 10, loss 1.5, 3m 00s left"


def test_at_the_end_nothing_is_left():
    assert line(10, seconds=60.0, train_loss=0.25, train_runtime=61.0) == "step 10 of 10, train_loss 0.25"


@pytest.mark.parametrize("prefix", ["", "eval_"])
def test_preferences_and_held_out_rows_are_told_and_nothing_else(prefix):
    values = {
        f"{prefix}loss": 0.5,
        f"{prefix}runtime": 3.0,
        f"{prefix}rewards/accuracies": 0.75,
        f"{prefix}rewards/margins": 0.125,
        f"{prefix}logps/chosen": -90.0,
    }
    told = f"{prefix}loss 0.5, {prefix}rewards/accuracies 0.75, {prefix}rewards/margins 0.125"
    assert line(1, **values) == f"step 1 of 10, {told}"


def test_a_damaged_log_is_looked_at_again(tmp_path, monkeypatch, capsys):
    class Looks(threading.Event):
        """Over at the third look; a worker writes the log anew before the last one."""

        looks = 0

        def wait(self, timeout=None):
            self.looks += 1
            if self.looks == 3:
                write_metrics(str(tmp_path), [{"step": 1, "max_steps": 4, "loss": 0.5}])
            return self.looks == 3

    (tmp_path / "metrics.jsonl").write_text("text\n")
    ray_fit._watch(str(tmp_path), Looks())
    assert capsys.readouterr().err.count("train: step 1 of 4, loss 0.5") == 1

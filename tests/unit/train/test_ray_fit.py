"""What a training worker raises, as `fit` raises it on the driver."""

import pickle
import signal
from pathlib import Path

import pytest
from ray.exceptions import RayActorError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from davir_ray.cluster.unexpected import ending
from davir_ray.config import ModelConfig, TrainConfig
from davir_ray.errors import ModelError, TrainingError, Unexpected
from davir_ray.train import ray_fit
from davir_ray.train.task import TrainTask

NOT_THE_MODEL = ModelError("/base: is not the model that the driver saw; name a revision")
WHERE = 'Traceback ...\n  File "odd.py", line 7, in work\nRuntimeError: out of memory'


@pytest.fixture
def raised(tmp_path, monkeypatch):
    """Return what `fit` raises where Ray Train does."""

    def fit(error):
        class Trainer:
            def __init__(self, *_, **__):
                pass

            def fit(self):
                raise pickle.loads(pickle.dumps(error))  # from Ray's controller

        monkeypatch.setattr(ray_fit, "Trainer", Trainer)
        train = TrainConfig(num_cpus_per_worker=1, zero_stage=None)
        base = ModelConfig(model_name_or_path="base")
        with pytest.raises(Exception) as caught:  # noqa: PT011
            ray_fit.fit(
                TrainTask(
                    train,
                    base,
                    "",
                    str(tmp_path),
                    evaluates=False,
                    device="cpu",
                    max_length=8,
                    keeps_epochs=False,
                )
            )
        return caught.value

    return fit


def test_an_error_of_ours_comes_back_as_it_was_whoever_else_fell(raised):
    error = raised(WorkerGroupError(WHERE, {0: RuntimeError("connection lost"), 1: NOT_THE_MODEL}))
    assert (type(error), error.lines) == (ModelError, NOT_THE_MODEL.lines)
    assert ending(error) == ([f"error: {NOT_THE_MODEL}"], ModelError.exit_code)


def test_what_nobody_foresaw_keeps_the_workers_traceback(raised):
    error = raised(WorkerGroupError(WHERE, {0: RuntimeError("out of memory\nmore")}))
    assert type(error) is Unexpected
    (told,), code = ending(error)
    line, _, path = told.partition("; the full traceback is in ")
    assert (line, code) == ("error: unexpected RuntimeError: out of memory", TrainingError.exit_code)
    assert WHERE in Path(path).read_text()
    Path(path).unlink()


def test_a_worker_or_a_cluster_that_is_gone_is_told_in_rays_last_line(raised):
    for error in (WorkerGroupError("", {0: RayActorError()}), ControllerError(ValueError("first\nlast"))):
        told = raised(error)
        assert type(told) is TrainingError
        assert str(told).startswith("training stopped: ")
    assert str(told) == "training stopped: last"


class Controller:
    """Ray Train's, as a handler of SIGINT meets it: it ends when it is told to, and then answers so."""

    def __init__(self):
        self.abort, self.told = self, 0

    def remote(self):
        self.told += 1


@pytest.fixture
def sigint():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
def test_an_interrupt_while_workers_train_ends_them_and_is_one(monkeypatch):
    def ended(_, timeout):
        raise RayActorError

    controller = Controller()
    monkeypatch.setattr(ray_fit.ray, "get", ended)
    ray_fit.Trainer._register_sigint_handler(None, controller)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert controller.told == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("sigint")
def test_a_process_that_was_begun_deaf_to_interrupts_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ray_fit.Trainer._register_sigint_handler(None, Controller())
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_the_handler_is_the_one_that_ray_train_registers():
    assert hasattr(ray_fit.TorchTrainer, "_register_sigint_handler")

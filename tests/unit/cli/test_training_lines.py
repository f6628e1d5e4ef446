from davir_ray.cli.training_lines import reference_lines, training_lines
from davir_ray.runs.record import HeldOut, ReferenceRecord, TrainingSettings
from tests.records import training_record


def test_what_training_did_to_held_out_rows_is_told():
    text = "\n".join(training_lines(training_record()))
    assert "sft on the core-set of r-1: 1,200 rows, 150 steps" in text
    (line,) = [line for line in text.splitlines() if line.startswith("held out")]
    assert line.split() == ["held", "out", "loss", "1.5000", "before", "1.2500", "after"]
    assert "frozen" not in text


def test_a_computed_learning_rate_reads_as_one_writes_it():
    settings = TrainingSettings(learning_rate=5e-7 * 10, dtype="float32", device="cpu", seed=0)
    assert settings.learning_rate != 5e-6
    lines = list(training_lines(training_record(settings=settings)))
    assert "settings  learning_rate 5e-06, dtype float32, device cpu, seed 0" in lines


def test_without_held_out_rows_nothing_is_said_of_them():
    assert "held out" not in "\n".join(training_lines(training_record(eval=HeldOut())))


def test_pairs_say_where_their_frozen_log_probabilities_came_from():
    assert "frozen    log-probabilities from the store" in list(
        training_lines(training_record(frozen_logps="store"))
    )


def test_each_fold_of_a_reference_is_told():
    trainings = tuple(training_record(run_id=name) for name in ("one", "two"))
    lines = list(reference_lines(ReferenceRecord(models={"reference": ("a", "b")}, trainings=trainings)))
    assert [line.split()[1] for line in lines if line.startswith("training")] == ["one", "two"]

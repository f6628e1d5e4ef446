from davir_ray.cli.training_lines import reference_lines, training_lines


def record(**changes):
    return {
        "run_id": "gsm8k-sft-0123456789ab",
        "seconds": 12.5,
        "objective": "sft",
        "trained_on": "the core-set of gsm8k-ba9876543210",
        "rows": 1200,
        "steps": 150,
        "settings": {"learning_rate": 2e-5, "seed": 0},
        "frozen_logps": None,
        "eval": {"before": {"loss": 1.5, "runtime": 3.0}, "after": {"loss": 1.25, "runtime": 3.0}},
        "metrics": "runs/x/metrics.jsonl",
        "model": "runs/x/model",
    } | changes


def test_what_training_did_to_held_out_rows_is_told():
    text = "\n".join(training_lines(record()))
    assert "sft on the core-set of gsm8k-ba9876543210: 1,200 rows, 150 steps" in text
    (line,) = [line for line in text.splitlines() if line.startswith("held out")]
    assert line.split() == ["held", "out", "loss", "1.5000", "before", "1.2500", "after"]
    assert "frozen" not in text


def test_a_computed_learning_rate_reads_as_one_writes_it():
    settings = {"learning_rate": 5e-7 * 10, "dtype": "float32", "seed": 0}
    assert settings["learning_rate"] != 5e-6
    lines = list(training_lines(record(settings=settings)))
    assert "settings  learning_rate 5e-06, dtype float32, seed 0" in lines


def test_without_held_out_rows_nothing_is_said_of_them():
    assert "held out" not in "\n".join(training_lines(record(eval={})))


def test_pairs_say_where_their_frozen_log_probabilities_came_from():
    assert "frozen    log-probabilities from the store" in list(training_lines(record(frozen_logps="store")))


def test_each_fold_of_a_reference_is_told():
    lines = list(reference_lines({"trainings": [record(run_id="one"), record(run_id="two")]}))
    assert [line.split()[1] for line in lines if line.startswith("training")] == ["one", "two"]

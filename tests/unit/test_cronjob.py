"""What is shipped for starting a night names what there is."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_cron_job_forbids_two_at_once_and_submits_files_that_exist():
    job = yaml.safe_load((ROOT / "jobs" / "nightly-cronjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    command = container["command"]
    assert command[:3] == ["ray", "job", "submit"]
    start = command[command.index("--") + 1 :]
    assert start[:2] == ["python", "jobs/nightly.py"]
    for name in start[1:]:
        assert (ROOT / name).is_file()
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_page_of_a_night_names_files_that_exist():
    text = (ROOT / "docs" / "nightly.md").read_text()
    named = set(re.findall(r"jobs/[\w./-]+\.(?:py|yaml)", text))
    assert {"jobs/nightly.py", "jobs/nightly-cronjob.yaml"} <= named
    assert [name for name in named if not (ROOT / name).is_file()] == []

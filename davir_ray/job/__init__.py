"""A run under way, in the order of the data. Every stage keeps what it finished under the store or the run, so a job
that was stopped goes on where it stopped.

job.py        opened, named, put together from what it works with
measuring.py  the corpus prepared, and measured under each model
ranking.py    scored, and put in order
choosing.py   chosen from, and written
facts.py      what the record says of how it was made
"""

from davir_ray.job.choosing import scan_folder, select_and_export
from davir_ray.job.facts import counts, facts
from davir_ray.job.job import Job, engine_for, engine_of, job_of, name_run, open_job
from davir_ray.job.measuring import measure_models, prepare_corpus, tokenise
from davir_ray.job.ranking import aim, look_up_need, rank_corpus

__all__ = [
    "Job",
    "aim",
    "counts",
    "engine_for",
    "engine_of",
    "facts",
    "job_of",
    "look_up_need",
    "measure_models",
    "name_run",
    "open_job",
    "prepare_corpus",
    "rank_corpus",
    "scan_folder",
    "select_and_export",
    "tokenise",
]

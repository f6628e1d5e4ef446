"""The `davir` command.

verbs.py        its verbs: parse, call, print; show.py: the options of `davir show`
safe_output.py  what is taken in and printed, made safe to look at
inspection.py   validate and inspect; status.py, verify_runs.py: what status and verify look at
*_lines.py, shown.py  the tables that are printed; extract.py and figures.py: short texts and numbers in them
"""

from davir_ray.cli.verbs import main

__all__ = ["main"]

"""Is all there that davir_ray stands on? Each thing is well, absent where it may be, or wrong, with what mends it.

finding.py   one thing that was looked at
examine.py   all of them, in order
in_time.py   a limit for what may never end
packages.py  what is required, what is installed, and what lies before it on the path
probes.py    importing what may crash, each in a process of its own
machine.py   Python, and the NVIDIA driver beside the build of torch
address.py   the cluster that RAY_ADDRESS names
reach.py     what a recipe reaches for: its rows, its models, its storage

Nothing here imports what it looks at: it has to run where that is broken.
"""

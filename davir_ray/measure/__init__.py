"""Measure what the store does not hold, on the cluster.

measurement.py  one pass: a model over the rows of a corpus, and its plan
ray_measure.py  the stage: plan, actors with an engine, parts of the store; ray_room.py: whether the cluster has room
chunks.py       what one engine call measures; chunk_rows.py: its token ids as Arrow
ray_meter.py    what a pass counts: told to people, to Prometheus, and to the events of its run
trial.py        rows that make an engine fail are found by halving, with a journal
loading.py      an engine loaded under a watchdog (watchdog.py)
"""

"""Measure what the store does not hold, on the cluster.

measurement.py  one pass: a model over the rows of a corpus, its plan, and what is left of it
in_turn.py      which passes go through the same engines
ray_pass_plan.py what the store does not hold, cut into chunks
ray_measure.py  the stage: chunks, actors with an engine, parts of the store; ray_room.py: whether the cluster has room
ray_chunks.py   what a worker does with a chunk, and the engine that it holds
chunks.py       what one engine call measures; chunk_rows.py: its token ids as Arrow
ray_meter.py    what a pass counts: told to people, to Prometheus, and to the events of its run
trial.py        rows that make an engine fail are found by halving, with a journal
loading.py      an engine loaded under a watchdog (watchdog.py)
"""

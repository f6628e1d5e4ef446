"""What a run would measure, why, and how long that would take; nothing is claimed to tell it.

plan.py       what a plan says, as it is printed
reasons.py    why a sequence is not in the store
estimate.py   seconds and GPU-hours, from the events of earlier runs
ray_plan.py   the plan of a recipe
"""

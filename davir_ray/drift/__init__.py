"""What a night did to the core-set of the night before.

result.py     what a comparison found
causes.py     why a row came in or went out
deciles.py    the spread of the scores of a source
ray_drift.py  two scored tables, joined by row
"""

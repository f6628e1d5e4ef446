"""A run on disk.

run.py        its name, folder and recipe
events.py     what it writes down of its way
record.py     its record, which other programs read
results.py    the files that it is for, with their digests
lease.py      one start at a time
history.py    earlier runs of a name; changes.py: what differs between two
locations.py  where each row of its corpus was
rows.py       rows of its scored table with their text; token_losses.py: the tokens of one
"""

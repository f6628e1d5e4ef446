"""What has been measured: names, parts, and what is missing.

keys.py          16-byte ids as NumPy keys
labels.py        what a part says of itself
measurements.py  the parts on disk
ray_lookup.py    the store asked for the measurements of a corpus
holdings.py      what a store holds, by folder, and when it was last used
info.py          its sizes
verify.py        its parts checked
verify_runs.py   the files of runs checked
compaction.py    small parts merged
prune.py         what nobody asks for any more
upkeep.py        `davir store verify`, `compact` and `prune`, told line by line
"""

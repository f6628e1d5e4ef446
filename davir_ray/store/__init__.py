"""What has been measured, and the prepared corpus.

labels.py        what a part says of itself
measurements.py  the parts on disk
prepared.py      a tokenised corpus on disk; ray_prepare.py makes it
ray_lookup.py    the store asked for the measurements of a corpus
mending.py       work that meets damage begins again
holdings.py      what a store holds, by folder, and when it was last used
info.py          its sizes
verify.py        its parts checked
compaction.py    small parts merged
prune.py         what nobody asks for any more
"""

"""What has been measured: names, parts, and what is missing.

keys.py          16-byte ids as NumPy keys
measurements.py  the parts on disk
ray_lookup.py    the store asked for the measurements of a corpus
"""

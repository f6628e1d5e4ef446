"""Files -> examples: which files, which rows, which shape, and what is wrong with a row.

paths.py, listing.py   which files make up the corpus, and how they are split
reading.py             splits -> rows -> examples; parquet_files.py and json_files.py open them; opening.py
formats.py             the formats, and which one a corpus has; sft_formats.py, preference_formats.py, turns.py
example.py             one row of any format in the one shape that the rest knows
columns.py             one schema for shards that disagree; json_text.py: what has no type in Parquet, and valid JSON
lookup.py              single rows found again after a run
"""

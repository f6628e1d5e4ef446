"""Files -> examples: which files, which rows, which shape, and what is wrong with a row.

paths.py, listing.py   which files make up the corpus, and how they are split
reading.py             splits -> rows -> examples; parquet_files.py, json_files.py, csv_files.py and arrow_files.py
                       open them; opening.py, mistaken.py
formats.py             the formats; sft_formats.py, preference_formats.py, turns.py; raw_turns.py goes before them
detection.py           which format a corpus has; nearest.py and misfits.py say what would make it fit;
                       naming.py: in the words of the section that names the corpus
refused.py             what makes a row unusable here; not_read.py: what nothing reads, counted
example.py             one row of any format in the one shape that the rest knows
dataset_info.py        LLaMA-Factory's list of data sets -> paths, formats, columns and tags
columns.py             one schema for shards that disagree; json_text.py: what has no type in Parquet, and valid JSON
folds.py               rows dealt out by content
lookup.py              single rows found again after a run
"""

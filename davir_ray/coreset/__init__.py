"""Scores -> the chosen rows: rank, rules, export.

rank.py        the order of all rows; ray_rank.py scores and ranks the corpus
rules.py       the selection rules, streamed over ranked rows: cuts.py, quotas.py, difficulty.py, near_duplicates.py
summary.py     the figures of the closing table; borderline.py, rank_correlation.py
shapes.py      examples -> rows that trainers read; export.py writes them; ray_export.py fetches the chosen rows
"""

"""Scores -> the chosen rows: rank, rules, export.

rank.py        the order of all rows; ray_rank.py scores and ranks the corpus
rules/         the selection rules, one file each, streamed over ranked rows
summary.py     the figures of the closing table; borderline.py, cut_noise.py,
               rank_correlation.py, subtasks.py
shapes.py      examples -> rows that trainers read; export.py writes them; ray_export.py fetches the chosen rows;
               export_plan.py says which formats go into which folders
llama_factory.py, dataset_info.py    the same for LLaMA-Factory, and the file that tells it what is there
"""

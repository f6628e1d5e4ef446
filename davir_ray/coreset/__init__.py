"""Scores -> the chosen rows: rank, rules, export."""

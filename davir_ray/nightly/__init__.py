"""The job of every night: what is new is measured, and the core-set is compared with that of the night before.

nights.py   what each night left behind: a line each
limits.py   when a night is a bad one
night.py    the story
"""

"""Ray.

ray_session.py   join a cluster, or start one on this machine
ray_exchange.py  exchanges of tables between tasks
unexpected.py    exceptions that nobody foresaw, freed from what Ray puts around them
"""

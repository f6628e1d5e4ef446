"""Ray.

ray_session.py   join a cluster, or start one on this machine
ray_exchange.py  exchanges of tables between tasks
ray_metrics.py   metrics for Prometheus
unexpected.py    exceptions that nobody foresaw, freed from what Ray puts around them
"""

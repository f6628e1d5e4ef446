"""Measure what is new, choose the core-set, and tell the drift against the night before, as a Ray job.

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- python jobs/nightly.py jobs/recipes/cluster.yaml

Takes the arguments of `davir nightly`.
"""

from start import start

if __name__ == "__main__":
    start("nightly")

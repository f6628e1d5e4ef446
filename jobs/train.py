"""Train on the core-set of a finished run, as a Ray job.

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- python jobs/train.py RECIPE.yaml

Takes the arguments of `davir train`.
"""

from start import start

if __name__ == "__main__":
    start("train")

"""Make the reference, score, select and train, as a Ray job.

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- python jobs/run.py RECIPE.yaml

Takes the arguments of `davir run`.
"""

from start import start

if __name__ == "__main__":
    start("run")

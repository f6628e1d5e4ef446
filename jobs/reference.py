"""Make the reference model, as a Ray job.

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- python jobs/reference.py RECIPE.yaml

Takes the arguments of `davir reference`.
"""

from start import start

if __name__ == "__main__":
    start("reference")

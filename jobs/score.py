"""Score a corpus and choose its core-set, as a Ray job.

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- python jobs/score.py jobs/recipes/cluster.yaml

Takes the arguments of `davir score`.
"""

from start import start

if __name__ == "__main__":
    start("score")

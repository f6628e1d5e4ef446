"""Score a corpus and choose its core-set, as a Ray job.

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- python jobs/score.py jobs/recipes/alpaca.yaml

Takes the arguments of `davir score`.
"""

import sys

from davir_ray.cli import main

if __name__ == "__main__":
    main(["score", *sys.argv[1:]])

"""Make the reference model, as a Ray job.

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- python jobs/reference.py RECIPE.yaml

Takes the arguments of `davir reference`.
"""

import sys

from davir_ray.cli import main

if __name__ == "__main__":
    main(["reference", *sys.argv[1:]])

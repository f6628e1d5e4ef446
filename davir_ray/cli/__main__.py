"""`python -m davir_ray.cli`."""

from davir_ray.cli import main

main()

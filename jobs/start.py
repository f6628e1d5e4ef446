"""Start a verb of `davir` as a Ray job; see score.py."""

import sys
from importlib.util import find_spec


def start(verb: str) -> None:
    """Run `davir VERB` with the arguments of this program, or say which Python a job needs."""
    if find_spec("ray") is None:
        sys.exit(
            f"error: {sys.executable} has no Ray: a job's `python` is the one on the PATH with which `ray start` began "
            'on the head, so begin there with: export PATH="$PWD/.venv/bin:$PATH"'
        )
    from davir_ray.cli import main

    main([verb, *sys.argv[1:]])

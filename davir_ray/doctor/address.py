"""The cluster that RAY_ADDRESS names: does anybody answer there? Ray itself is not started, which takes seconds."""

import os
import socket
from collections.abc import Iterator
from functools import partial
from urllib.parse import urlsplit

from davir_ray.doctor.finding import Finding
from davir_ray.doctor.in_time import look_in_time
from davir_ray.foreign_text import without_credentials

SECONDS = 3.0
SECONDS_IN_ALL = 15.0
"""A name may have several addresses, and the server that knows them may be slow."""
NAME = "RAY_ADDRESS"
FOUND_LATER = {
    "auto": "the cluster last started on this machine, which is looked for when a job begins",
    "local": "Ray is started on this machine",
}
PORTS = {"ray": 10001, "http": 80, "https": 443}
"""Scheme -> its port, where the address names none."""
MEND = f"ray start --head  # on that machine; or unset {NAME}, and davir starts Ray on this one"


def look_at_cluster() -> Iterator[Finding]:
    """Tell whether the port of RAY_ADDRESS is open; nothing where it is not set."""
    if address := os.environ.get(NAME):
        yield look_in_time(NAME, partial(_look_at_address, address), SECONDS_IN_ALL)


def _look_at_address(address: str) -> Finding:
    if address in FOUND_LATER:
        return Finding(NAME, "ok", f"{address}: {FOUND_LATER[address]}")
    shown, why = without_credentials(address), _why_no_answer(address)
    return Finding(NAME, "wrong", shown, why, MEND) if why else Finding(NAME, "ok", f"{shown} answers")


def _why_no_answer(address: str) -> str:
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        port = place.port or PORTS.get(place.scheme)
        if not place.hostname or port is None:
            return "names no host and port"
        socket.create_connection((place.hostname, port), SECONDS).close()
    except (OSError, ValueError) as error:
        return f"nobody answers: {error}"
    return ""

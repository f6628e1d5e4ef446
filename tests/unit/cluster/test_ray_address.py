"""A cluster that RAY_ADDRESS names and that does not answer: told by the address that the user gave."""

import socket

import pytest

from davir_ray.cluster import ray_session
from davir_ray.errors import EngineError


@pytest.mark.parametrize(("given", "resolved"), [("{}", ""), ("head:6379", " ({})")])
def test_the_address_is_told_as_it_was_given_and_the_resolved_one_behind_it(given, resolved, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(ray_session, "canonicalize_bootstrap_address", lambda _: closed)
    with pytest.raises(EngineError) as caught:
        ray_session._check_answers(given.format(closed))
    told = f"nobody answers at RAY_ADDRESS={given}{resolved} within 20 seconds: ".format(closed)
    assert str(caught.value).startswith(told)
    assert caught.value.exit_code == 5

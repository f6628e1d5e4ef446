"""The cluster that RAY_ADDRESS names, where somebody answers and where nobody does."""

import socket

import pytest

from davir_ray.doctor.address import look_at_cluster


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["", "ray://", "http://"])
def test_an_open_port_answers(port, scheme, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"{scheme}127.0.0.1:{port}")
    (found,) = look_at_cluster()
    assert (found.state, found.found) == ("ok", f"{scheme}127.0.0.1:{port} answers")


def test_a_closed_port_is_wrong_with_what_mends_it(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed}")
    (found,) = look_at_cluster()
    assert (found.state, found.found) == ("wrong", f"127.0.0.1:{closed}")
    assert "nobody answers" in found.problem
    assert "unset RAY_ADDRESS" in found.mend


@pytest.mark.parametrize("address", ["head", "ray://", "head:port"])
def test_an_address_that_is_none_is_wrong(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    (found,) = look_at_cluster()
    assert found.state == "wrong"


def test_without_an_address_there_is_nothing_to_look_at(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert list(look_at_cluster()) == []
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert [one.state for one in look_at_cluster()] == ["ok"]

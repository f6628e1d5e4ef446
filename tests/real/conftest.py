"""Fixtures of the real tier."""

import pytest

from davir_ray.storage.filesystems import filesystem


@pytest.fixture(scope="module")
def bucket():
    """A bucket on S3, as moto serves it on this machine; its address and keys are in the environment."""
    monkeypatch = pytest.MonkeyPatch()
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    fs, _ = filesystem("s3://bucket")
    fs.makedirs("bucket", exist_ok=True)  # moto keeps it for the whole process
    yield "s3://bucket"
    fs.clear_instance_cache()
    server.stop()
    monkeypatch.undo()

"""The lease of a night on S3, as moto serves it on this machine: a create is a conditional put."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from davir_ray import storage
from davir_ray.runs.lease import Lease, take

pytestmark = pytest.mark.real


def test_a_file_on_s3_is_created_once(bucket):
    uri = storage.join(bucket, "created", "x.json")
    assert storage.create(uri, b"one")
    assert not storage.create(uri, b"two")
    assert storage.read_bytes(uri) == b"one"


def test_of_many_starts_on_s3_one_gets_the_lease_and_the_next_follows_it(bucket):
    folder = storage.join(bucket, "lease")
    with ThreadPoolExecutor(4) as pool:
        taken = [one for one in pool.map(take, [folder] * 4) if isinstance(one, Lease)]
    assert len(taken) == 1
    with taken[0]:
        assert not isinstance(take(folder), Lease)
    assert isinstance(take(folder), Lease)

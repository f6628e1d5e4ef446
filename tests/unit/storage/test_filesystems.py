"""Which settings a filesystem gets, and in whose words its errors come."""

import errno

import fsspec
import pytest

from davir_ray import storage
from davir_ray.errors import CorpusError, StoreError, Unreachable
from davir_ray.storage.filesystems import S3_RETRIES, filesystem, reaching

URI = "s3://bucket/a.parquet"


@pytest.fixture(autouse=True)
def plain_settings(monkeypatch):
    pytest.importorskip("s3fs")
    monkeypatch.setitem(fsspec.config.conf, "s3", {})
    for name in ("AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"):
        monkeypatch.delenv(name, raising=False)


def retries() -> dict:
    return filesystem(URI)[0].config_kwargs.get("retries")


def test_s3_is_asked_more_often_than_botocore_does_of_its_own_accord():
    assert retries() == S3_RETRIES


@pytest.mark.parametrize("name", ["AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"])
def test_what_the_environment_says_of_retries_goes_first(monkeypatch, name):
    monkeypatch.setenv(name, "standard" if name.endswith("MODE") else "3")
    assert retries() is None


def test_settings_of_fsspec_are_kept(monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 3}, "anon": True})
    fs, path = filesystem(URI)
    assert (fs.anon, path) == (True, "bucket/a.parquet")
    assert fs.config_kwargs == {"retries": S3_RETRIES, "read_timeout": 3}
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"retries": {"mode": "legacy"}}})
    assert retries() == {"mode": "legacy"}


def test_an_error_of_a_filesystem_names_the_uri_and_what_it_was():
    with (
        pytest.raises(Unreachable, match=r"^s3://bucket/a.parquet: the storage fails: OSError: .*slow down"),
        reaching(URI),
    ):
        raise OSError(errno.EBUSY, "slow down")
    with pytest.raises(CorpusError, match="RuntimeError: no credentials"), reaching(URI, CorpusError):
        raise RuntimeError("no credentials\nand much more")


@pytest.mark.parametrize("error", [FileNotFoundError(URI), FileExistsError(URI), CorpusError("known")])
def test_what_callers_act_on_stays_as_it_is(error):
    with pytest.raises(type(error)) as caught, reaching(URI):
        raise error
    assert caught.value is error


def test_a_listing_that_never_shows_what_was_written_ends_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr("davir_ray.storage.files.LISTED_SECONDS", 0.05)
    monkeypatch.setattr("davir_ray.storage.files.LOOK_SECONDS", 0.01)
    storage.write_atomic(str(tmp_path / "a.json"), b"1")
    storage.await_files(str(tmp_path), 1)
    with pytest.raises(StoreError, match=f"{tmp_path}: what was written there is not listed after"):
        storage.await_files(str(tmp_path), 2)

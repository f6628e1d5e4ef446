"""The corpus and the storage layer on S3, as moto serves it on this machine."""

import pyarrow as pa
import pytest

from davir_ray import storage
from davir_ray.config import CorpusConfig
from davir_ray.corpus.listing import list_corpus
from davir_ray.corpus.reading import examples, read_source_rows

pytestmark = pytest.mark.real


def test_a_corpus_on_s3_is_listed_read_and_noticed_when_it_changes(bucket):
    folder = storage.join(bucket, "corpus")
    for n in range(3):
        storage.write_table(storage.join(folder, f"part-{n}.parquet"), pa.table({"text": [f"a{n}", f"b{n}"]}))
    corpus = CorpusConfig(paths=f"{folder}/*.parquet")
    listing = list_corpus(corpus)
    texts = [p.example.text for s in listing.splits for p in examples(s, corpus, listing.formats[s.source])]
    assert texts == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert read_source_rows(listing.splits[1], [1])["text"].to_pylist() == ["b1"]
    assert list_corpus(CorpusConfig(paths=folder)).digest == listing.digest
    storage.write_table(storage.join(folder, "part-1.parquet"), pa.table({"text": ["other"]}))
    assert list_corpus(corpus).digest != listing.digest


def test_a_listing_on_s3_is_never_stale(bucket):
    storage.write_atomic(storage.join(bucket, "x", "a.json"), b"1")
    assert storage.list_files(storage.join(bucket, "x"), ".json") == ["s3://bucket/x/a.json"]
    storage.write_atomic(storage.join(bucket, "x", "b.json"), b"2")
    assert len(storage.list_files(storage.join(bucket, "x"), ".json")) == 2
    storage.delete(storage.join(bucket, "x"))
    assert storage.list_files(storage.join(bucket, "x"), ".json") == []
    assert not storage.exists(storage.join(bucket, "x"))

"""Engines that note every call in a file beside the model's folder, used by import path: who measured what, where."""

import json
import os
import time
from pathlib import Path

from davir_ray.logprobs.hash_engine import HashEngine
from davir_ray.tokens.views import sequence_id

NOTES = "calls.jsonl"


class Noted:
    """Notes a call before it is made, so that one that is cut short counts too; then takes its time over it.

    Its numbers depend on the name of the model's folder, and not on where that lies.
    """

    seconds = 0.25

    def __init__(self, model_name):
        self.folder = Path(model_name)
        self.engine = self.made()

    def made(self):
        raise NotImplementedError

    def logprobs(self, sequences):
        self.note([sequence_id(one.ids, one.scored).hex() for one in sequences])
        time.sleep(self.seconds)
        return self.engine.logprobs(sequences)

    def note(self, ids):
        """Append one line: short appends of several processes do not mix."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        line = {"model": self.folder.name, "node": node, "process": os.getpid(), "ids": ids}
        with (self.folder.parent / NOTES).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def close(self):
        self.engine.close()


class NotedHash(Noted):
    """The hash engine."""

    def made(self):
        return HashEngine(self.folder.name)


class QuickHash(NotedHash):
    """The same without taking its time: its numbers are equal."""

    seconds = 0.0


class NotedTransformers(Noted):
    """The engine that measures real models on a CPU."""

    def made(self):
        from davir_ray.logprobs.hf.engine import TransformersEngine

        return TransformersEngine(str(self.folder))

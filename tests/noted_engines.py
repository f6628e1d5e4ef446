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

    def __init__(self, model_path, **settings):
        self.folder, self.settings = Path(model_path), settings
        self.engine = self.made(**settings)

    def switch(self, model):
        """Go over to another model in the same process, as the engines of the project do."""
        self.close()
        self.__init__(model.model_path, **self.settings | {"adapter_path": model.adapter_path})

    def made(self, *, adapter_path, dtype, device, max_length):
        raise NotImplementedError

    def logprobs(self, sequences):
        self.note(sequences)
        return self.engine.logprobs(sequences)

    def token_values(self, sequences, wanted):
        self.note(sequences)
        return self.engine.token_values(sequences, wanted)

    def note(self, sequences):
        """Append one line, for short appends of several processes do not mix; then take time."""
        import ray

        ids = [sequence_id(one.ids, one.scored).hex() for one in sequences]
        node = ray.get_runtime_context().get_node_id()
        line = {"model": self.folder.name, "node": node, "process": os.getpid(), "ids": ids}
        with (self.folder.parent / NOTES).open("a") as file:
            file.write(json.dumps(line) + "\n")
        time.sleep(self.seconds)

    def close(self):
        self.engine.close()


class NotedHash(Noted):
    """The hash engine."""

    def made(self, **settings):
        return HashEngine(self.folder.name)


class QuickHash(NotedHash):
    """The same without taking its time: its numbers are equal."""

    seconds = 0.0


class NotedTransformers(Noted):
    """The engine that measures real models on a CPU."""

    def made(self, *, adapter_path, dtype, device, max_length):
        from davir_ray.logprobs.hf.engine import TransformersEngine

        return TransformersEngine(str(self.folder), adapter_path=adapter_path, dtype=dtype, device=device)

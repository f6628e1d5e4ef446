"""An engine on transformers: exact, on a CPU or a GPU, for any decoder-only model.

packed   known architectures: no padding, shared prefixes computed once (prefixes.py, packed_attention.py)
plain    all others, and what is longer than a sliding window: sequences of one length at a time, through
         the model's own code without padding or mask
"""

import gc
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from davir_ray.errors import EngineDied
from davir_ray.logprobs.engine import Represented, TokenSequence, TokenValues, Wanted
from davir_ray.logprobs.hf import packed_attention
from davir_ray.logprobs.hf.batching import Batch, Block, equal_lengths, plan_batches, plan_whole
from davir_ray.logprobs.hf.model import Takes, load_model, packed_limit, put_adapter, set_attention
from davir_ray.logprobs.hf.packed_attention import KeysValues, Packing
from davir_ray.logprobs.hf.token_head import WHOLE_CHUNK_BYTES, HeadValues, proven_head, values_of_rows
from davir_ray.models.resolve import ResolvedModel

BATCH_TOKENS = {"cpu": 768, "cuda": 16_384}
"""A CPU is fastest where a batch's activations stay in its cache; a GPU wants much work at once."""

Answer = tuple[NDArray[np.int64], HeadValues]
"""Values of Q tokens, and whose they are: int64 [Q, 2], (sequence of the call, index among its scored tokens)."""


Vectors = dict[int, NDArray[np.float32]]
"""Sequence of the call -> its pooled hidden states, float32 [hidden]."""


class TransformersEngine:
    """One model in memory. A call's results depend on its own sequences alone, and repeat."""

    def __init__(
        self,
        model_path: str,
        *,
        adapter_path: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        batch_tokens: int | None = None,
    ) -> None:
        self._load = partial(load_model, dtype=dtype, device=device)
        self._batch_tokens = batch_tokens or BATCH_TOKENS[device]
        self._take(self._load(model_path, adapter_path), model_path, adapter_path)

    def _take(self, model: PreTrainedModel, model_path: str, adapter_path: str | None) -> None:
        """Make ready to measure with a model in memory."""
        self._model, self._loaded = model, (model_path, adapter_path)
        self._takes = Takes.of(model)
        self._own_attention = model.config._attn_implementation
        limit = packed_limit(model)
        self._head = proven_head(model, sliceable=limit > 0)
        self._packed_limit = limit if self._head else 0
        self._headers: dict[bytes, dict[int, KeysValues]] = {}

    def switch(self, model: ResolvedModel) -> None:
        """Give the numbers of another model from now on.

        An adapter goes over the base that is loaded; else weights are read anew. Raises `ModelError`; then the engine
        cannot be used any more.
        """
        wanted = (model.model_path, model.adapter_path)
        if model.adapter_path and self._loaded == (model.model_path, None):
            set_attention(self._model, self._own_attention)
            self._take(put_adapter(self._model, model.adapter_path), *wanted)
        elif wanted != self._loaded:
            self.close()  # first: two models may not fit
            self._take(self._load(*wanted), *wanted)

    def logprobs(self, sequences: Sequence[TokenSequence]) -> list[NDArray[np.float32]]:
        """Return the scored tokens' log-probabilities: one float32 [S] array a sequence, in order.

        Running out of a GPU's memory raises `torch.OutOfMemoryError`, and the engine can go on.
        """
        return [one.logprobs for one in self.token_values(sequences, frozenset())]

    def token_values(self, sequences: Sequence[TokenSequence], wanted: Wanted) -> list[TokenValues]:
        """Return what is wanted of the scored tokens, all from one pass of the head, in the order of the sequences.

        With ranks the head may take fewer rows at once, so that log-probabilities can differ from those of `logprobs`
        in the last bits. Raises what `logprobs` does.
        """
        packed, plain = self._ways(sequences)
        answers = chain(
            self._measure_packed(sequences, packed, wanted), self._measure_plain(sequences, plain, wanted)
        )
        return _gathered(sequences, answers, wanted)

    def represented(self, sequences: Sequence[TokenSequence]) -> list[Represented]:
        """Return the scored tokens' log-probabilities and the pooled hidden states of each sequence, from one pass.

        No prefix is shared here, for the states of every token are needed; log-probabilities can differ from those of
        `logprobs` in the last bits. Raises what `logprobs` does.
        """
        packed, plain = self._ways(sequences)
        vectors: Vectors = {}
        answers = chain(
            self._represent_packed(sequences, packed, vectors),
            self._measure_plain(sequences, plain, frozenset(), vectors),
        )
        values = _gathered(sequences, answers, frozenset())
        return [Represented(one.logprobs, vectors[index]) for index, one in enumerate(values)]

    def close(self) -> None:
        """Free the model's memory; the engine cannot be used afterwards."""
        del self._model, self._head, self._headers
        gc.collect()  # a model may hold itself
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _ways(self, sequences: Sequence[TokenSequence]) -> tuple[list[int], list[int]]:
        """Tell which sequences can be packed, and which cannot. Raises `ValueError` for one that cannot be measured."""
        self._takes.check(sequences)
        fits = [len(sequence.ids) <= self._packed_limit for sequence in sequences]
        return [i for i, fit in enumerate(fits) if fit], [i for i, fit in enumerate(fits) if not fit]

    def _measure_packed(
        self, sequences: Sequence[TokenSequence], members: list[int], wanted: Wanted
    ) -> Iterator[Answer]:
        if not members:
            return
        assert self._head is not None
        set_attention(self._model, packed_attention.NAME)
        known, self._headers = self._headers, {}
        for batch in plan_batches([sequences[i] for i in members], self._batch_tokens):
            if batch.header and batch.header not in self._headers:
                self._headers[batch.header] = known.get(batch.header) or self._compute_header(batch.header)
            hidden = self._run(batch, self._headers.get(batch.header))
            values = self._head(hidden, self._tensor(batch.rows), self._tensor(batch.targets), wanted)
            sequence, index = batch.owners.T
            yield np.stack([np.array(members)[sequence], index], axis=1), values

    def _represent_packed(
        self, sequences: Sequence[TokenSequence], members: list[int], vectors: Vectors
    ) -> Iterator[Answer]:
        """Measure, and add the pooled hidden states of each sequence to the vectors."""
        if not members:
            return
        assert self._head is not None
        set_attention(self._model, packed_attention.NAME)
        for inside, batch in plan_whole([sequences[i] for i in members], self._batch_tokens):
            hidden = self._run(batch, None)
            pooled = [mean_by_position(_of_block(hidden, block)) for block in batch.blocks]
            _keep(vectors, [members[i] for i in inside], torch.cat(pooled))
            values = self._head(hidden, self._tensor(batch.rows), self._tensor(batch.targets), frozenset())
            sequence, index = batch.owners.T
            yield np.stack([np.array(members)[sequence], index], axis=1), values

    def _run(self, batch: Batch, header: dict[int, KeysValues] | None) -> Tensor:
        return self._body(batch.ids, batch.positions, Packing(batch.blocks, header=header))

    def _compute_header(self, header: bytes) -> dict[int, KeysValues]:
        """Return the keys and values of a prefix at each layer."""
        ids = np.frombuffer(header, dtype=np.int32).astype(np.int64)
        recorded: dict[int, KeysValues] = {}
        whole = Block(first=0, count=1, length=len(ids), past=())
        self._body(ids, np.arange(len(ids)), Packing([whole], recorded=recorded))
        return recorded

    def _body(self, ids: NDArray[np.int64], positions: NDArray[np.int64], packing: Packing) -> Tensor:
        """Return the last hidden states [N, hidden] of a packed batch."""
        output = self._model.base_model(
            input_ids=self._tensor(ids)[None],
            position_ids=self._tensor(positions)[None],
            use_cache=False,
            packing=packing,
        )
        states: Tensor = output.last_hidden_state[0]
        return states

    def _measure_plain(
        self,
        sequences: Sequence[TokenSequence],
        members: list[int],
        wanted: Wanted,
        vectors: Vectors | None = None,
    ) -> Iterator[Answer]:
        """Measure, and add the pooled hidden states of each sequence to the vectors, where there are any."""
        if not members:
            return
        set_attention(self._model, self._own_attention)
        room = WHOLE_CHUNK_BYTES[self._model.device.type] // (4 * self._takes.vocabulary)
        lengths = equal_lengths([sequences[i] for i in members], self._batch_tokens if self._head else room)
        for batch in ([members[i] for i in group] for group in lengths):
            ids = self._tensor(np.stack([sequences[i].ids for i in batch]).astype(np.int64))
            scored = np.stack([sequences[i].scored for i in batch])
            row, _ = np.nonzero(scored)
            index = np.cumsum(scored, axis=1)[scored] - 1
            hidden = self._states(ids) if self._head or vectors is not None else None
            if vectors is not None and hidden is not None:
                _keep(vectors, batch, mean_by_position(hidden))
            values = self._plain_values(ids, hidden, self._tensor(scored)[:, 1:], wanted)
            yield np.stack([np.array(batch)[row], index], axis=1), values

    def _states(self, ids: Tensor) -> Tensor:
        """Return the last hidden states [B, T, hidden] of sequences of one length [B, T]."""
        states: Tensor = self._model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return states

    def _plain_values(
        self, ids: Tensor, hidden: Tensor | None, predicted: Tensor, wanted: Wanted
    ) -> HeadValues:
        """Return values [Q], row by row. ids: [B, T]; predicted: bool [B, T - 1], whether ids[:, 1:] count.

        hidden: what the head reads; without a head of its own the whole model runs.
        """
        targets = ids[:, 1:][predicted]
        if self._head is None:
            logits = self._model(input_ids=ids, use_cache=False).logits
            return values_of_rows(logits[:, :-1][predicted].float(), targets, wanted)
        assert hidden is not None
        rows = predicted.new_zeros(ids.shape)
        rows[:, :-1] = predicted
        return self._head(hidden.flatten(0, 1), rows.flatten().nonzero()[:, 0], targets, wanted)

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._model.device)


def mean_by_position(states: Tensor) -> Tensor:
    """Return the mean of hidden states [B, T, hidden] with the weights 1 to T, in float32 [B, hidden]."""
    length = states.shape[1]
    weights = torch.arange(1, length + 1, dtype=torch.float32, device=states.device)
    return torch.einsum("t,bth->bh", weights / (length * (length + 1) / 2), states.float())


def _of_block(hidden: Tensor, block: Block) -> Tensor:
    """Return the states of a block's segments [count, length, hidden], of those of a batch."""
    end = block.first + block.count * block.length
    return hidden[block.first : end].unflatten(0, (block.count, block.length))


def _keep(vectors: Vectors, members: Sequence[int], pooled: Tensor) -> None:
    vectors.update(zip(members, pooled.cpu().numpy(), strict=True))


def _gathered(
    sequences: Sequence[TokenSequence], answers: Iterator[Answer], wanted: Wanted
) -> list[TokenValues]:
    """Let the answers be computed, and return them one sequence after another. Raises `EngineDied`."""
    starts = np.cumsum([0, *(int(sequence.scored.sum()) for sequence in sequences)])
    found = _room_for(int(starts[-1]), wanted)
    try:
        with torch.inference_mode():
            for owners, values in answers:
                _fill(found, starts[owners[:, 0]] + owners[:, 1], values)
    except torch.AcceleratorError as error:
        raise EngineDied(f"the GPU cannot go on: {error}") from error
    return [_part(found, slice(*ends)) for ends in pairwise(starts.tolist())]


def _room_for(count: int, wanted: Wanted) -> TokenValues:
    """Make room for the values of all scored tokens of a call, one sequence after another."""
    return TokenValues(
        logprobs=np.empty(count, dtype=np.float32),
        rank=np.empty(count, dtype=np.uint8) if "rank" in wanted else None,
        entropy=np.empty(count, dtype=np.float32) if "entropy" in wanted else None,
    )


def _fill(found: TokenValues, where: NDArray[np.int64], values: HeadValues) -> None:
    found.logprobs[where] = values.logprobs.cpu().numpy()
    if found.rank is not None and values.rank is not None:
        found.rank[where] = values.rank.cpu().numpy()
    if found.entropy is not None and values.entropy is not None:
        found.entropy[where] = values.entropy.cpu().numpy()


def _part(found: TokenValues, part: slice) -> TokenValues:
    return TokenValues(
        logprobs=found.logprobs[part],
        rank=None if found.rank is None else found.rank[part],
        entropy=None if found.entropy is None else found.entropy[part],
    )

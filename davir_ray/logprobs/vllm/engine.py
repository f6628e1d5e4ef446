"""An engine on vLLM 0.32: token ids in, log-probabilities of the scored positions out.

    asked     V2 runner: `prompt_logprob_token_ids`, the head runs from the first scored position on
    classic   everywhere else, for what `asked` left out, and for ranks: `prompt_logprobs=0` in flat lists

The engine lives in this process, so the death of the process frees its device. Only tensor parallelism starts
others, which end with it.
"""

import gc
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from vllm import LLM, EngineArgs, SamplingParams
from vllm.config import ModelConfig
from vllm.exceptions import VLLMClientError
from vllm.inputs import TokensPrompt
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform

from davir_ray.errors import EngineDied, EngineError
from davir_ray.logprobs.engine import TokenSequence, TokenValues, Wanted
from davir_ray.logprobs.vllm.answers import check_wanted, cut_tail, first_scored, read_asked, read_flat
from davir_ray.logprobs.vllm.checksum import checksum_of_files, checksum_of_worker
from davir_ray.logprobs.vllm.limits import await_room, batch_tokens, cache_bytes, spare_gpu_bytes
from davir_ray.logprobs.vllm.lora import lora_arguments
from davir_ray.models.resolve import ResolvedModel

MOST_SEQUENCES = 256
GPU_TOKENS = 16_384
CPU_TOKENS = 2_048
CPU_SPARE_BYTES = 2 * 2**30
ROOM_SECONDS = 60.0
"""How long an engine waits for a GPU's memory that another process is giving back."""


class VllmEngine:
    """One model in vLLM. Values may differ in the last bits with what else is in the call.

    other_adapters: with which it may be measured later (`switch`), each made like `adapter_path`, if there is one.

    Starting takes seconds on a CPU once vLLM is imported (itself 7 to 30 s) and about a minute on a GPU.
    """

    def __init__(
        self,
        model_path: str,
        *,
        adapter_path: str | None = None,
        other_adapters: Sequence[str] = (),
        dtype: str = "bfloat16",
        max_length: int,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.85,
        engine_args: dict[str, Any] | None = None,
    ) -> None:
        _prepare_process(dtype)
        own = {
            "model": model_path,
            "dtype": dtype,
            "tensor_parallel_size": tensor_parallel_size,
            "gpu_memory_utilization": gpu_memory_utilization,
        }
        adapters = list(dict.fromkeys([*([adapter_path] if adapter_path else []), *other_adapters]))
        try:
            arguments = _arguments(own, max_length, adapters, engine_args or {})
            if current_platform.is_cuda_alike():
                await_room(partial(_free_share, tensor_parallel_size), gpu_memory_utilization, ROOM_SECONDS)
            self._llm = LLM(**arguments)
        except EngineError:
            raise
        except Exception as error:  # of any type: some of what it finds wrong at a start vLLM asserts
            raise EngineError(_could_not_load(model_path, error)) from error
        config = self._llm.llm_engine.vllm_config
        self.asks = bool(config.use_v2_model_runner)
        self._vocab_size = config.model_config.get_vocab_size()
        self._max_length = config.model_config.max_model_len - 1
        self._model_path = model_path
        self._adapters = {
            path: LoRARequest(f"adapter-{number}", number, path) for number, path in enumerate(adapters, 1)
        }
        self._lora = self._adapters[adapter_path] if adapter_path else None

    def logprobs(self, sequences: Sequence[TokenSequence]) -> list[NDArray[np.float32]]:
        """Return the scored tokens' log-probabilities: one float32 [S] array a sequence, in order."""
        return [one.logprobs for one in self.token_values(sequences, frozenset())]

    def token_values(self, sequences: Sequence[TokenSequence], wanted: Wanted) -> list[TokenValues]:
        """Return log-probabilities and, where wanted, ranks of the scored tokens, in the order of the sequences.

        Ranks go through the classic path: the head runs on every token of a prompt, and so does vLLM's own rank kernel,
        which is slow (vllm issue 55577). Raises `EngineError` where entropies are wanted: vLLM gives none.
        """
        check_wanted(wanted)
        for index, sequence in enumerate(sequences):
            self._check(index, sequence)
        cut = [cut_tail(sequence) for sequence in sequences]
        results = self._ask(cut) if self.asks and not wanted else self._classic(cut, wanted)
        missing = [index for index, values in enumerate(results) if values is None]
        for index, values in zip(missing, self._classic([cut[i] for i in missing], wanted), strict=True):
            results[index] = values
        return [_present(index, values) for index, values in enumerate(results)]

    def switch(self, model: ResolvedModel) -> None:
        """Give the numbers of another model from now on; `can_switch` (../switching.py) tells of which that is true.

        The base of adapters stays where it is, and an adapter is put on or off; other weights are read into the places
        of those that are there, so that nothing is compiled or captured again.
        """
        if model.model_path != self._model_path:
            self._reload(model.model_path)
        self._lora = self._adapters[model.adapter_path] if model.adapter_path else None

    def _reload(self, model_path: str) -> None:
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": model_path})
            # On a CPU vLLM keeps matrices in a layout of their own: there tests alone compare.
            as_it_is = current_platform.is_cpu() or self._holds(model_path)
        except Exception as error:  # what was there may be half overwritten
            raise EngineDied(f"vLLM could not read {model_path} in place: {error}") from error
        if not as_it_is:
            raise EngineDied(f"vLLM read {model_path} in place, and holds other weights")
        self._model_path = model_path

    def _holds(self, model_path: str) -> bool:
        """Tell whether the worker holds the weights of a folder."""
        config = self._llm.llm_engine.vllm_config.model_config
        dtype, tied = (
            cast(torch.dtype, config.dtype),
            getattr(config.hf_text_config, "tie_word_embeddings", True),
        )
        (held,) = self._llm.collective_rpc(checksum_of_worker, args=(dtype,))
        return held == checksum_of_files(model_path, dtype, current_platform.device_type, tied=tied)

    def close(self) -> None:
        """Free the model and its device; the engine cannot be used afterwards."""
        if hasattr(self, "_llm"):
            self._llm.llm_engine.engine_core.shutdown()
            del self._llm
            gc.collect()

    def _ask(self, sequences: list[TokenSequence]) -> list[TokenValues | None]:
        answers = self._generate(sequences, [_asked(sequence) for sequence in sequences])
        return [read_asked(answer, one) for answer, one in zip(answers, sequences, strict=True)]

    def _classic(self, sequences: list[TokenSequence], wanted: Wanted) -> list[TokenValues | None]:
        parameters = SamplingParams(prompt_logprobs=0, flat_logprobs=True, **ONE_TOKEN)
        answers = self._generate(sequences, [parameters] * len(sequences))
        return [read_flat(answer, one, wanted) for answer, one in zip(answers, sequences, strict=True)]

    def _generate(
        self, sequences: list[TokenSequence], parameters: list[SamplingParams]
    ) -> list[RequestOutput]:
        if not sequences:
            return []
        prompts = [TokensPrompt(prompt_token_ids=sequence.ids.tolist()) for sequence in sequences]
        try:
            return self._llm.generate(prompts, parameters, use_tqdm=False, lora_request=self._lora)
        except VLLMClientError as error:
            raise EngineError(f"vLLM refused a sequence: {error}") from error
        except (
            Exception
        ) as error:  # a step that failed leaves requests behind: nothing after it can be trusted
            raise EngineDied(f"vLLM failed: {type(error).__name__}: {error}") from error

    def _check(self, index: int, sequence: TokenSequence) -> None:
        """Refuse here what a GPU would answer with an error that it does not survive."""
        if len(sequence.ids) > self._max_length:
            raise EngineError(
                f"sequence {index}: {len(sequence.ids)} tokens, but this engine takes {self._max_length}"
            )
        if sequence.ids.min() < 0 or sequence.ids.max() >= self._vocab_size:
            raise EngineError(f"sequence {index}: token ids must lie in 0 to {self._vocab_size - 1}")


def _free_share(devices: int) -> float:
    """Return the share of memory that is free, of the fullest of an engine's GPUs."""
    return min(free / total for free, total in map(torch.cuda.mem_get_info, range(devices)))


def _could_not_load(model_path: str, error: Exception) -> str:
    """Say in one line why, and on a GPU how much memory there is."""
    why = " ".join(str(error).split()) or type(error).__name__
    if not current_platform.is_cuda_alike():
        return f"vLLM could not load {model_path}: {why}"
    free, total = torch.cuda.mem_get_info()
    return (
        f"vLLM could not load {model_path}: {why} ({free / 2**30:.1f} of the GPU's {total / 2**30:.1f} GiB are free; "
        "engine.gpu_memory_utilization is what vLLM wants free, engine.tensor_parallel_size spreads a model)"
    )


ONE_TOKEN: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}
"""vLLM must generate something; one token is the least."""


def _asked(sequence: TokenSequence) -> SamplingParams:
    first = first_scored(sequence)
    return SamplingParams(
        prompt_logprob_start=first - 1,
        prompt_logprob_token_ids=np.asarray(sequence.ids[first:], dtype=np.int32)[:, None],
        **ONE_TOKEN,
    )


def _present(index: int, values: TokenValues | None) -> TokenValues:
    if values is None:
        raise EngineError(f"sequence {index}: vLLM returned no log-probabilities, twice")
    return values


def _prepare_process(dtype: str) -> None:
    """Set what vLLM reads from the environment when an engine starts; what the user set stays."""
    for name in [name for name in os.environ if name.startswith("VLLM_DP_")]:
        del os.environ[name]  # left over from a driver, they would make this engine wait for siblings
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    # Actors of one machine would bind themselves to the same cores.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # A sequence of the full context needs one position more, for a token that is never fed back.
    os.environ["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1"
    if dtype == "float32":  # on a GPU Triton would round what attention multiplies to TF32, of 11 bits
        os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it warns of much that is as it should be here


def _arguments(
    own: dict[str, Any], max_length: int, adapters: Sequence[str], users: dict[str, Any]
) -> dict[str, Any]:
    """Put together what `LLM` receives: ours, the limits that follow from the model, then the user's."""
    overrides = {"head_dtype": "float32"} | users.get("hf_overrides", {})
    arguments = {
        **own,
        "hf_overrides": overrides,
        "skip_tokenizer_init": True,
        "enable_prefix_caching": False,
        "seed": 0,
        "use_tqdm_on_load": False,
        **(lora_arguments(adapters) if adapters else {}),
        **{name: value for name, value in users.items() if name != "hf_overrides"},
    }
    if own["tensor_parallel_size"] > 1:
        arguments.setdefault("distributed_executor_backend", "mp")
    model = EngineArgs(**arguments).create_model_config()
    return _limits(model, min(max_length, model.max_model_len), own) | arguments


def _limits(model: ModelConfig, max_length: int, own: dict[str, Any]) -> dict[str, Any]:
    on_cpu = current_platform.is_cpu()
    spare = CPU_SPARE_BYTES
    if not on_cpu:
        spare = spare_gpu_bytes(current_platform.get_device_total_memory(), own["gpu_memory_utilization"])
    tokens = batch_tokens(
        vocab_size=model.get_vocab_size(),
        max_length=max_length,
        spare_bytes=spare,
        ceiling=CPU_TOKENS if on_cpu else GPU_TOKENS,
    )
    limits = {
        "max_model_len": max_length + 1,
        "max_num_batched_tokens": tokens,
        "max_num_seqs": min(MOST_SEQUENCES, tokens),
    }
    if os.environ.get("VLLM_CPU_KVCACHE_SPACE") and on_cpu:
        return limits | {"enforce_eager": True}
    cache = cache_bytes(
        layers=model.hf_text_config.num_hidden_layers,
        heads=-(-model.get_total_num_kv_heads() // own["tensor_parallel_size"]),
        head_size=model.get_head_size(),
        item_bytes=cast(torch.dtype, model.dtype).itemsize,
        max_length=max_length,
        step_tokens=tokens,
    )
    # Without a size vLLM takes most of the machine. On a CPU compiling takes minutes and gains little.
    return limits | {"kv_cache_memory_bytes": cache} | ({"enforce_eager": True} if on_cpu else {})

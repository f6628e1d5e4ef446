"""Which models one engine can measure in turn, without being started again.

transformers   any: an adapter goes over the base that is loaded, else weights are read anew
vllm           a base and adapters over it: an adapter is put on or off;
               models that differ in their weights alone: these are read into the places of those that are there
your own       any, if its class has `switch` (`SwitchingEngine` in engine.py); one that it inherits does not count
               where it has an `__init__` of its own
"""

from davir_ray.config import EngineConfig
from davir_ray.config.by_path import is_as_new
from davir_ray.logprobs.choice import BUILDERS, WITHOUT_EFFECT, Choice
from davir_ray.logprobs.custom import engine_class
from davir_ray.models.alike import config_of, differ_in_weights_alone
from davir_ray.models.resolve import ResolvedModel

RELOADED = frozenset(
    {
        *("cohere", "gemma", "gemma2", "gemma3_text", "gpt2", "granite", "llama"),
        *("mistral", "olmo2", "phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "starcoder2"),
    }
)
"""`model_type`s whose numbers tests/real/test_vllm_switching.py compares: weights read in place, and a new engine.

vLLM itself says no more than a line in its log where it leaves weights as they were.
"""

NOT_OF_WEIGHTS = WITHOUT_EFFECT - {"load_format"} | {
    *("block_size", "compilation_config", "enforce_eager", "max_model_len"),
}
"""Arguments of vLLM beside which weights are read in place: others, as `quantization`, may change what they become."""


def can_switch(choice: Choice, config: EngineConfig, one: ResolvedModel, other: ResolvedModel) -> bool:
    """Tell whether an engine that measures one model can be switched to the other, and back.

    The numbers are then those that an engine started for it gives.
    """
    if not (one.model_path and other.model_path):
        return False  # one is known by its identity alone
    if choice.type == "vllm":
        return one.model_path == other.model_path or _vllm_reloads(choice, config, one, other)
    return choice.type in BUILDERS or is_as_new(engine_class(choice.type), "switch", than="__init__")


def _vllm_reloads(choice: Choice, config: EngineConfig, one: ResolvedModel, other: ResolvedModel) -> bool:
    """Tell whether vLLM can read the weights of one model into the places of the other's."""
    if one.adapter_path or other.adapter_path or one.model_type not in RELOADED:
        return False
    if not NOT_OF_WEIGHTS.issuperset(config.engine_args) or config.tensor_parallel_size > 1:
        return False  # what a GPU of several holds cannot be compared with the files (vllm/checksum.py)
    # On a CPU vLLM copies the head's weights into another layout, and does not see that tied ones have changed.
    if choice.device == "cpu" and config_of(one.model_path).get("tie_word_embeddings", True):
        return False
    return differ_in_weights_alone(one.model_path, other.model_path)

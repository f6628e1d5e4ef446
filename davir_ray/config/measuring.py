"""The recipe from the corpus to the scores, and the shapes of the core-set."""

from typing import Annotated, Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from davir_ray.config.section import ReadIf, Section
from davir_ray.schema import Role


class TagsConfig(Section):
    """The keys and the role names of turns, where the corpus has names of its own for them.

    The names are LLaMA-Factory's. What is not given is found under the names of OpenAI and ShareGPT.
    """

    role_tag: str | None = None
    """The key of a turn that names its role."""
    content_tag: str | None = None
    """The key of a turn that holds its text."""
    user_tag: str | None = None
    """The role of who asks."""
    assistant_tag: str | None = None
    """The role of who answers."""
    observation_tag: str | None = None
    """The role of what a tool returned."""
    function_tag: str | None = None
    """The role of a call of a tool, whose text is the JSON of the call."""
    system_tag: str | None = None
    """The role of the system prompt."""


class SourceConfig(Section):
    """How to read the rows of one source; what is not given is as for the whole corpus."""

    format: str | None = None
    """In place of `corpus.format`."""
    columns: dict[str, str] | None = None
    """In place of all of `corpus.columns`."""
    tags: TagsConfig | None = None
    """In place of all of `corpus.tags`."""


def _for_sources_without(setting: str) -> ReadIf:
    """Mark a setting of the whole corpus that each source may have in its own place."""

    def holds(corpus: "CorpusConfig") -> bool:
        return any(getattr(corpus.sources.get(name), setting, None) is None for name in corpus.paths)

    return ReadIf(holds, "each source under `corpus.sources` has its own")


class CorpusConfig(Section):
    """Which files hold the rows, and how to read them."""

    paths: dict[str, tuple[str, ...]]
    """Files, folders or globs on any fsspec URI: one, a list, or a mapping from source name to these."""
    format: Annotated[str, _for_sources_without("format")] = "auto"
    """`auto`, or one of the names that `davir formats` prints."""
    columns: Annotated[dict[str, str], _for_sources_without("columns")] = {}
    """Renames: the format's column name -> the column's name in the files. A block of LLaMA-Factory's will do."""
    tags: Annotated[TagsConfig, _for_sources_without("tags")] = TagsConfig()
    """Names of turn keys and roles, where they are neither OpenAI's nor ShareGPT's."""
    sources: dict[str, SourceConfig] = {}
    """Source name under `paths` -> its own `format`, `columns` and `tags`."""
    id: str | None = None
    """Column of your own that names a row; it stands beside the row's score."""
    source_by: str | None = None
    """Column that names the source of a row; without it, the key under `paths`."""
    group_by: str | None = None
    """Column that names the group of a row, for quotas; `source` takes the row's source."""
    limit: int | None = Field(None, ge=1)
    """Take only the first rows, by source and path; `--limit` sets it."""
    on_bad_file: Literal["error", "skip"] = "error"
    """A file that cannot be read stops the run, or is named in the record and skipped."""

    @field_validator("paths", mode="before")
    @classmethod
    def _name_sources(cls, value: Any) -> Any:
        """Accept a path, a list of paths, or a mapping from source to either."""
        if not isinstance(value, dict):
            value = {"corpus": value}
        return {name: (paths,) if isinstance(paths, str) else paths for name, paths in value.items()}

    @field_validator("paths")
    @classmethod
    def _not_empty(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if not value or not all(value.values()):
            raise ValueError("names no files")
        return value

    @model_validator(mode="after")
    def _known_sources(self) -> "CorpusConfig":
        if unknown := set(self.sources) - set(self.paths):
            names = ", ".join(self.paths)
            raise ValueError(f"sources names {', '.join(sorted(unknown))}; paths has {names}")
        return self

    def of(self, source: str) -> "CorpusConfig":
        """Return the settings that hold for one source: its own `format`, `columns` and `tags` where it has any."""
        own = self.sources.get(source, SourceConfig())
        given = {"format": own.format, "columns": own.columns, "tags": own.tags}
        return self.model_copy(update={name: value for name, value in given.items() if value is not None})


class TokensConfig(Section):
    """How a row becomes token ids, and which of them count."""

    template: str = "chat"
    """`chat` (the model's own), `alpaca`, `plain`, or the path of a Jinja chat template."""
    chat_template_kwargs: dict[str, Any] = {}
    """Passed to the chat template, e.g. `enable_thinking: false`."""
    max_length: int = Field(2048, ge=2)
    """The longest sequence, in tokens."""
    truncation: Literal["keep_start", "drop"] = "keep_start"
    """What happens to a longer one: cut at the end and flagged `truncated`, or dropped as `too_long`."""
    score_on: Literal["all_assistant", "last_assistant", "completion", "all"] = "all_assistant"
    """Which tokens count: every assistant turn, the last one, what follows the last user turn, or all."""


class ModelConfig(Section):
    """A model: a local folder, a hub id, or an fsspec URI; optionally with a LoRA adapter over it."""

    model_name_or_path: str
    """Folder, hub id or fsspec URI. Weights must be safetensors."""
    revision: str | None = None
    """Hub revision."""
    adapter_name_or_path: str | None = None
    """A PEFT LoRA adapter to put over the model."""


OneOrMore = ModelConfig | tuple[ModelConfig, ...] | None


class ModelsConfig(Section):
    """The models whose measurements are compared. What the recipe makes need not be named."""

    base: ModelConfig
    """The model that will be trained on the core-set."""
    reference: OneOrMore = None
    """DavIR's reference: the base fine-tuned on the corpus. A folder that holds only an adapter goes over the base.
    Of a list of K, each model measures the rows of its fold (see `reference.fit: cross`)."""
    warmup: OneOrMore = None
    """Checkpoints of a warm-up, adapters with `moments.safetensors` beside them (see `warmup`)."""
    target: OneOrMore = None
    """A model that has seen the target, or one a prior (see `references.target`)."""
    prior: OneOrMore = None
    """What `target` began from, as many models; without it, the base."""

    @field_validator("base", "reference", "warmup", "target", "prior", mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [cls._from_string(one) for one in value]
        return {"model_name_or_path": value} if isinstance(value, str) else value

    @field_validator("reference", "warmup", "target", "prior")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if value == ():
            raise ValueError("names no model; leave it out, or name one")
        return value

    @model_validator(mode="after")
    def _a_prior_each(self) -> "ModelsConfig":
        if self.prior is not None and len(self.all_of("prior")) != len(self.all_of("target")):
            raise ValueError("prior: names as many models as target does, or is left out")
        return self

    def all_of(self, role: Role) -> tuple[ModelConfig, ...]:
        """Return the models of a role, in order, or none; a prior that is not named is the base."""
        if role == "prior" and self.prior is None:
            return (self.base,) * len(self.all_of("target"))
        named: OneOrMore = getattr(self, role)
        if named is None:
            return ()
        return named if isinstance(named, tuple) else (named,)

    def called(self, name: str, fold: int = 0) -> ModelConfig:
        """Return a model by its name (see `schema.model_names`), of several references that of a fold."""
        role, _, index = name.partition("-")
        return self.all_of(cast(Role, role))[int(index) if index else fold]


def _may_be_vllm(engine: "EngineConfig") -> bool:
    """Tell whether vLLM may be what measures, and on a GPU if it was chosen for us."""
    return engine.type == "vllm" or (engine.type == "auto" and engine.device != "cpu")


ON_VLLM = ReadIf(_may_be_vllm, "it is for engine vllm (and for auto, which takes vLLM on GPUs alone)")
ON_GPUS = ReadIf(lambda engine: engine.device != "cpu", "with device cpu no GPU is asked for")
NOT_HASH = ReadIf(
    lambda engine: engine.type != "hash", "engine hash computes nothing: its numbers are made up"
)


class EngineConfig(Section):
    """What measures log-probabilities. Base and reference always share one setting.

    Settings of vLLM are refused beside an engine that is another. With `auto` they may stand: where it chooses
    transformers they have no effect, and the line that says what was chosen says so.
    """

    type: str = "auto"
    """`auto`, `vllm`, `transformers`, `hash` (meaningless numbers, for trying a recipe), or `module:Class`."""
    device: Annotated[Literal["auto", "cuda", "cpu"], NOT_HASH] = "auto"
    """`auto`: a GPU where the cluster has one now; say `cuda` and `wait_seconds` where it starts them on demand."""
    wait_seconds: Annotated[float, NOT_HASH, ON_GPUS] = Field(0.0, ge=0)
    """How long to wait for a node that has room for an engine, where the cluster has none yet. The cluster is asked for
    it meanwhile, so that an autoscaler starts one. 0: what cannot be had now is an error at once."""
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], NOT_HASH] = "auto"
    """`auto`: bfloat16 on a GPU, float32 on a CPU."""
    replicas: int | None = Field(None, ge=1)
    """How many engines run at once; without it, as many as the cluster has room for."""
    tensor_parallel_size: Annotated[int, ON_VLLM, ON_GPUS] = Field(1, ge=1)
    """GPUs an engine (vLLM only)."""
    num_cpus: float | None = Field(None, gt=0)
    """CPUs an engine holds; without it, 1 beside a GPU, and all of a node's where there is none."""
    stall_seconds: float = Field(3600.0, gt=0)
    """An engine that has not answered for so long is taken for stalled, and its process is replaced; the first call of
    each, which may compile, has twice as long. A call measures one chunk: ten seconds of an 8B model on an H100, half a
    minute of a 135M model on two CPU cores and half an hour of an 8B model there, so the default errs on the side of
    waiting. Where calls are known to be short, minutes lose less."""
    gpu_memory_utilization: Annotated[float, ON_VLLM, ON_GPUS] = Field(0.85, gt=0, lt=1)
    """Share of a GPU's memory that is vLLM's: it has to be free when an engine starts (for a minute it is waited for),
    and the log-probabilities of prompts have half of the rest. The key-value cache takes a few steps' tokens, unless
    `engine_args` name `kv_cache_memory_bytes`."""
    engine_args: Annotated[dict[str, Any], ON_VLLM] = {}
    """Passed to vLLM's `LLM` untouched."""


class MeasureConfig(Section):
    """What is kept of a measurement beyond what the score asks for."""

    kind: Literal["loss", "token_loss", "token_rank", "token_entropy"] = "loss"
    """`loss` keeps a row's sum; `token_loss` the loss of each counted token too, which `davir inspect RUN --row ID`
    shows; `token_rank` also its rank, and `token_entropy` also the entropy where it stands (not by vLLM). It is the
    least that is kept: a score that needs more is given more, and one that measures nothing keeps nothing."""


class ScoreConfig(Section):
    """Which formula turns measurements into one number a row."""

    name: str = "davir"
    """One of the names that `davir scores` prints, or `module:attribute` of a score of your own."""
    min_loss: float = Field(1e-3, ge=0)
    """Mean nats a token below which a loss is too small to divide by (status `no_score`); of scores that divide."""
    seed: int = 0
    """Seed of scores that draw: `random`."""
    token_share: float = Field(0.75, gt=0, le=1)
    """The share of the corpus's tokens that `s_ifd` looks at: those for which the instruction matters most."""
    order: Literal["highest", "lowest"] = "highest"
    """Which end of the score ranks first."""


class ExportConfig(Section):
    """In which shapes the core-set is written."""

    formats: tuple[Literal["parquet", "jsonl", "messages", "trl", "trl_frozen", "ids"], ...] = ("parquet",)
    """`parquet` and `jsonl` keep the user's own columns; `messages` and `trl` are ready for trainers; `trl_frozen` has
    DPO's frozen log-probabilities beside each pair; `ids` names the rows."""
    one_schema: bool = False
    """Put the rows of all sources together, in the union of their columns; otherwise each source has a folder."""
    rows_per_file: int = Field(100_000, ge=1)
    """Rows in each file of the core-set."""

"""The recipe: one frozen model a stage, in pipeline order. Unknown keys are refused.

Precedence: the defaults here, then the YAML file, then each `--set a.b=c` in order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from davir_ray.errors import RecipeError


class Section(BaseModel):
    """Base of all parts of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CorpusConfig(Section):
    """Which files hold the rows, and how to read them."""

    paths: dict[str, tuple[str, ...]]
    """Files, folders or globs on any fsspec URI: one, a list, or a mapping from source name to these."""
    format: str = "auto"
    """`auto`, or one of the names that `davir formats` prints."""
    columns: dict[str, str] = {}
    """Renames: the format's column name -> the column's name in the files."""
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


class ModelsConfig(Section):
    """The two models whose losses are compared."""

    base: ModelConfig
    """The model that will be trained on the core-set."""
    reference: ModelConfig | None = None
    """DavIR's reference: the base fine-tuned on the corpus. A folder that holds only an adapter goes over the base."""

    @field_validator("base", "reference", mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"model_name_or_path": value} if isinstance(value, str) else value


class EngineConfig(Section):
    """What measures log-probabilities. Base and reference always share one setting."""

    type: str = "auto"
    """`auto`, `vllm`, `transformers`, `hash` (meaningless numbers, for trying a recipe), or `module:Class`."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """`auto`: a GPU where the cluster has one now; say `cuda` for a cluster that starts its GPUs on demand."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 on a GPU, float32 on a CPU."""
    replicas: int | None = Field(None, ge=1)
    """How many engines run at once; without it, as many as the cluster has room for."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs an engine (vLLM only)."""
    num_cpus: float | None = Field(None, gt=0)
    """CPUs an engine holds; without it, 1 beside a GPU, and all of a node's where there is none."""
    gpu_memory_utilization: float = Field(0.85, gt=0, lt=1)
    """Share of a GPU's memory that vLLM may take for weights and cache."""
    engine_args: dict[str, Any] = {}
    """Passed to vLLM's `LLM` untouched."""


class ScoreConfig(Section):
    """Which formula turns measurements into one number a row."""

    name: str = "davir"
    """One of the names that `davir scores` prints, or `module:attribute` of a score of your own."""
    min_loss: float = Field(1e-3, ge=0)
    """Mean nats a token below which a loss is too small to divide by (status `no_score`)."""
    seed: int = 0
    """Seed of the `random` score."""
    order: Literal["highest", "lowest"] = "highest"
    """Which end of the score ranks first."""


class Rule(Section):
    """Base of the selection rules. Rules run in order, each on the rows that the ones before it kept."""


class FractionRule(Rule):
    """Keep the best share of the rows."""

    type: Literal["fraction"] = "fraction"
    fraction: float = Field(gt=0, le=1)
    """Share of the rows that reach this rule; the count is rounded down, and is at least one."""


class CountRule(Rule):
    """Keep the best rows, up to a number."""

    type: Literal["count"] = "count"
    count: int = Field(ge=1)


class TokenBudgetRule(Rule):
    """Keep the best rows whose response tokens fit into a budget; the first that does not fit ends the set."""

    type: Literal["token_budget"] = "token_budget"
    tokens: int = Field(ge=1)


class ThresholdRule(Rule):
    """Keep rows whose score lies within bounds, both included."""

    type: Literal["threshold"] = "threshold"
    min_score: float | None = None
    max_score: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> "ThresholdRule":
        if self.min_score is None and self.max_score is None:
            raise ValueError("needs min_score, max_score or both")
        return self


class QuotaRule(Rule):
    """Keep the best rows of each group: a share of the group, or a number."""

    type: Literal["quota"] = "quota"
    by: Literal["group", "source"] = "group"
    fraction: float | None = Field(None, gt=0, le=1)
    count: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_size(self) -> "QuotaRule":
        if (self.fraction is None) == (self.count is None):
            raise ValueError("needs either fraction or count")
        return self


class LengthQuotaRule(Rule):
    """Keep the best share of each band of response length, so that the core-set keeps the corpus's lengths."""

    type: Literal["length_quota"] = "length_quota"
    bands: int = Field(8, ge=2, le=256)
    """How many bands, with about equally many rows in each."""
    fraction: float = Field(gt=0, le=1)


class KeepSourcesRule(Rule):
    """Keep every row of the named sources, whatever other rules say (wherever this stands in the list)."""

    type: Literal["keep_sources"] = "keep_sources"
    sources: tuple[str, ...] = Field(min_length=1)


class DifficultyRule(Rule):
    """Keep rows whose mean base loss a token lies between two quantiles of the rows that reach this rule."""

    type: Literal["difficulty"] = "difficulty"
    min_quantile: float = Field(0.0, ge=0, le=1)
    max_quantile: float = Field(1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> "DifficultyRule":
        if self.min_quantile >= self.max_quantile:
            raise ValueError("min_quantile must be below max_quantile")
        return self


class NearDuplicatesRule(Rule):
    """Drop a row whose token shingles are nearly those of a better row (MinHash, estimated Jaccard)."""

    type: Literal["near_duplicates"] = "near_duplicates"
    threshold: float = Field(0.8, gt=0, lt=1)
    num_perm: int = Field(128, ge=16, le=1024)
    shingle: int = Field(5, ge=1)
    """Tokens a shingle."""


SelectRule = Annotated[
    FractionRule
    | CountRule
    | TokenBudgetRule
    | ThresholdRule
    | QuotaRule
    | LengthQuotaRule
    | KeepSourcesRule
    | DifficultyRule
    | NearDuplicatesRule,
    Field(discriminator="type"),
]


class ExportConfig(Section):
    """In which shapes the core-set is written."""

    formats: tuple[Literal["parquet", "jsonl", "messages", "trl", "ids"], ...] = ("parquet",)
    """`parquet` and `jsonl` keep the user's own columns; `messages` and `trl` are ready for trainers."""
    rows_per_file: int = Field(100_000, ge=1)
    """Rows in each file of the core-set."""


class Recipe(Section):
    """Everything that decides what a run does."""

    corpus: CorpusConfig
    tokens: TokensConfig = TokensConfig()
    models: ModelsConfig
    engine: EngineConfig = EngineConfig()
    score: ScoreConfig = ScoreConfig()
    select: tuple[SelectRule, ...] = (FractionRule(fraction=0.06),)
    export: ExportConfig = ExportConfig()
    store: str = "davir/store"
    """Folder or fsspec URI of the measurement store, shared by all runs."""
    output: str = "davir/runs"
    """Folder or fsspec URI under which each run has a folder."""

    @field_validator("select")
    @classmethod
    def _one_signature(cls, rules: tuple[SelectRule, ...]) -> tuple[SelectRule, ...]:
        kinds = {(rule.num_perm, rule.shingle) for rule in rules if isinstance(rule, NearDuplicatesRule)}
        if len(kinds) > 1:
            raise ValueError("near_duplicates rules must have one num_perm and one shingle size")
        return rules

    @model_validator(mode="after")
    def _known_sources(self) -> "Recipe":
        if self.corpus.source_by is None:
            for rule in self.select:
                if isinstance(rule, KeepSourcesRule) and (
                    unknown := set(rule.sources) - set(self.corpus.paths)
                ):
                    names = ", ".join(self.corpus.paths)
                    raise ValueError(
                        f"select: keep_sources names {', '.join(sorted(unknown))}; corpus.paths has {names}"
                    )
        return self


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `a.b=c` overrides; values are read as YAML. Raises `RecipeError`."""
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: expected a mapping of sections (corpus, models, ...)")
    return parse_recipe(override(tree, overrides), str(path))


def override(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b=c` overrides to a recipe given as plain data, in order."""
    for text in overrides:
        _apply(tree, text)
    return tree


def parse_recipe(tree: dict[str, Any], name: str) -> Recipe:
    """Validate a recipe given as plain data. `name` stands in error messages."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, one['loc'])) or 'recipe'}: {_said(one)}" for one in error.errors()]
        raise RecipeError(f"{name}: not a valid recipe\n" + "\n".join(lines)) from error


def _said(error: Any) -> str:
    """Say a pydantic error as this project would."""
    if error["type"] == "extra_forbidden":
        return "there is no such setting"
    given = error["input"]
    return f"{error['msg']}, not {given!r}" if isinstance(given, str | int | float) else str(error["msg"])


def _apply(tree: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise RecipeError(f"--set {setting}: expected a.b=value")
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        child = node[parent] = node.get(parent) or {}
        if isinstance(child, str) and parents[0] == "models":
            child = node[parent] = {"model_name_or_path": child}
        if not isinstance(child, dict):
            raise RecipeError(f"--set {setting}: `{parent}` is not a section")
        node = child
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {setting}: the value is not valid YAML: {error}") from error

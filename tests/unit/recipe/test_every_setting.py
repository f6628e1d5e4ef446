"""Every setting of the recipe, one line each: it has an effect, and where it has none it is refused.

An effect is another name of the run or of the training (all that decides a result is in it), or for a setting that
decides where and how fast, a module that reads it. A setting without a line here fails the first test.
"""

import ast
from collections import deque
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pydantic import BaseModel

from davir_ray.config import ScoreConfig
from davir_ray.config.section import ReadIf
from davir_ray.errors import RecipeError
from davir_ray.recipe import Recipe, load_recipe, parse_recipe
from davir_ray.recipe.yaml_tree import read_yaml
from davir_ray.runs.run import run_id_of, training_id_of
from davir_ray.schema import View
from davir_ray.scores import SCORES
from davir_ray.scores.score import SETTINGS, Measured, TargetMeasured
from tests.conftest import ROOT

SMALLEST = {"corpus": {"paths": "rows.parquet"}, "models": {"base": {"model_name_or_path": "b"}}}
ABSENT = object()
PACKAGE = ROOT / "davir_ray"
READERS = [
    module
    for module in (str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
    if not module.startswith(("config/", "recipe/"))
]
"""Modules that may read a setting: all but those that say what there is."""


class Case(NamedTuple):
    """value, other: two values that differ in effect; of a rule, the whole rule. beside: what else they need.

    idle: other settings beside which `value` has no effect. reader: the module that reads what is in no name.
    """

    value: Any
    other: Any = ABSENT
    beside: Mapping[str, Any] = MappingProxyType({})
    idle: tuple[Mapping[str, Any], ...] = ()
    reader: str = ""


DATA_SETS = str(ROOT / "tests/unit/corpus/data_sets")
OWN = {"format": "text", "columns": {}, "tags": {}}
PAIRS = {"train.objective": "dpo"}
AIMED = {"score.name": "less", "target.paths": "t"}
KEYS = {"sources": "corpus", "references": "reference"}
HELD_OUT = {"train.eval_corpus.paths": "held_out.parquet"}
LORA = {"train.lora.target_modules": ["q_proj"]}
SFT = {"train.objective": "sft"}
DAVIR_DPO = {"train.objective": "davir_dpo"}
OWN_DEEPSPEED = {"train.deepspeed": {"bf16": {}}}
TWO_SOURCES = {"corpus.paths": {"a": "x", "b": "y"}}
HASH, ON_CPU = {"engine.type": "hash"}, {"engine.device": "cpu"}
NOT_VLLM = ({"engine.type": "transformers"}, HASH, {"engine.type": "mine:Engine"}, ON_CPU)
MEASURE, FIT = "measure/ray_measure.py", "train/ray_fit.py"
SOURCES, LIMITS = "train/sources.py", "nightly/limits.py"


def rule(kind: str, **settings: Any) -> dict[str, Any]:
    return {"type": kind, **settings}


CASES = {
    "label": Case("what people call it", reader="cli/status.py"),
    "report_to": Case(["wandb"], reader="runs/trackers.py"),
    "corpus.paths": Case("other.parquet", "rows.parquet"),
    "corpus.dataset_info": Case(
        DATA_SETS, f"{DATA_SETS}/../data_sets", beside={"corpus.paths": {}, "corpus.datasets": ["plain"]}
    ),
    "corpus.datasets": Case(
        ["plain"], ["plain", "kto"], beside={"corpus.paths": {}, "corpus.dataset_info": DATA_SETS}
    ),
    "corpus.format": Case("alpaca", idle=({"corpus.sources.corpus": OWN},)),
    "corpus.columns": Case({"output": "gold"}, idle=({"corpus.sources.corpus": OWN},)),
    "corpus.tags": Case({"role_tag": "who"}, idle=({"corpus.sources.corpus": OWN},)),
    "corpus.tags.role_tag": Case("who"),
    "corpus.tags.content_tag": Case("said"),
    "corpus.tags.user_tag": Case("Q"),
    "corpus.tags.assistant_tag": Case("A"),
    "corpus.tags.observation_tag": Case("O"),
    "corpus.tags.function_tag": Case("F"),
    "corpus.tags.system_tag": Case("S"),
    "corpus.sources.corpus.format": Case("text"),
    "corpus.sources.corpus.columns": Case({"output": "gold"}),
    "corpus.sources.corpus.tags": Case({"role_tag": "who"}),
    "corpus.id": Case("key"),
    "corpus.source_by": Case("origin"),
    "corpus.group_by": Case("family"),
    "corpus.limit": Case(5),
    "corpus.on_bad_file": Case("skip"),
    "tokens.template": Case("plain"),
    "tokens.chat_template_kwargs": Case(
        {"enable_thinking": False}, idle=({"tokens.template": "plain"}, {"tokens.template": "alpaca"})
    ),
    "tokens.max_length": Case(64),
    "tokens.truncation": Case("drop"),
    "tokens.score_on": Case("all"),
    "models.base.model_name_or_path": Case("c", "b"),
    "models.base.revision": Case("v2"),  # of a folder or a URI it is refused when the model is looked for
    "models.base.adapter_name_or_path": Case("adapter"),
    "models.base.identity": Case("0" * 32),
    "models.reference": Case("r"),
    "models.warmup": Case("w"),
    "models.target": Case("t"),
    "models.prior": Case("p", beside={"models.target": "t"}),
    "engine.type": Case("transformers"),
    "engine.device": Case("cuda", idle=(HASH,)),
    "engine.wait_seconds": Case(5.0, idle=(HASH, ON_CPU), reader="measure/ray_room.py"),
    "engine.dtype": Case("float32", idle=(HASH,)),
    "engine.replicas": Case(2, reader=MEASURE),
    "engine.tensor_parallel_size": Case(2, idle=(*NOT_VLLM, {"engine.type": "vllm"} | ON_CPU)),
    "engine.num_cpus": Case(2.0, reader=MEASURE),
    "engine.stall_seconds": Case(60.0, reader="measure/ray_chunks.py"),
    "engine.gpu_memory_utilization": Case(
        0.5, idle=(*NOT_VLLM, {"engine.type": "vllm"} | ON_CPU), reader="logprobs/choice.py"
    ),
    "engine.engine_args": Case({"enforce_eager": True}, idle=NOT_VLLM),
    "measure.kind": Case("token_loss"),
    "score.name": Case("rho_mean"),
    "score.min_loss": Case(0.1, idle=({"score.name": "random"}, {"score.name": "length"})),
    "score.seed": Case(3, beside={"score.name": "random"}, idle=({}, {"score.name": "ifd"})),
    "score.token_share": Case(0.5, beside={"score.name": "s_ifd"}, idle=({}, {"score.name": "rsr"})),
    "score.order": Case("lowest"),
    "select.fraction.fraction": Case(rule("fraction", fraction=0.5), rule("fraction", fraction=0.1)),
    "select.count.count": Case(rule("count", count=5), rule("count", count=6)),
    "select.token_budget.tokens": Case(rule("token_budget", tokens=5), rule("token_budget", tokens=6)),
    "select.threshold.min_score": Case(
        rule("threshold", min_score=0.1, max_score=1.0), rule("threshold", max_score=1.0)
    ),
    "select.threshold.max_score": Case(
        rule("threshold", min_score=0.1, max_score=1.0), rule("threshold", min_score=0.1)
    ),
    "select.quota.by": Case(
        rule("quota", by="group", count=1),
        rule("quota", by="source", count=1),
        beside={"corpus.group_by": "family"},
        idle=({},),
    ),
    "select.quota.fraction": Case(
        rule("quota", by="source", fraction=0.5), rule("quota", by="source", fraction=0.1)
    ),
    "select.quota.count": Case(rule("quota", by="source", count=1), rule("quota", by="source", count=2)),
    "select.length_quota.bands": Case(
        rule("length_quota", bands=4, fraction=0.5), rule("length_quota", fraction=0.5)
    ),
    "select.length_quota.fraction": Case(
        rule("length_quota", fraction=0.5), rule("length_quota", fraction=0.1)
    ),
    "select.keep_sources.sources": Case(
        rule("keep_sources", sources=["a"]),
        rule("keep_sources", sources=["b"]),
        beside=TWO_SOURCES,
        idle=({},),
    ),
    "select.difficulty.min_quantile": Case(rule("difficulty", min_quantile=0.1), rule("difficulty")),
    "select.difficulty.max_quantile": Case(rule("difficulty", max_quantile=0.9), rule("difficulty")),
    "select.near_duplicates.threshold": Case(rule("near_duplicates", threshold=0.5), rule("near_duplicates")),
    "select.near_duplicates.num_perm": Case(rule("near_duplicates", num_perm=64), rule("near_duplicates")),
    "select.near_duplicates.shingle": Case(rule("near_duplicates", shingle=3), rule("near_duplicates")),
    "select.mix.fraction": Case(rule("mix", fraction=0.1), rule("mix", fraction=0.2)),
    "select.mix.count": Case(rule("mix", count=1), rule("mix", count=2)),
    "select.mix.random": Case(rule("mix", count=1, random=0.1), rule("mix", count=1)),
    "select.mix.bands": Case(rule("mix", count=1, bands=2), rule("mix", count=1)),
    "select.mix.seed": Case(rule("mix", count=1, seed=2), rule("mix", count=1)),
    "select.round_robin.fraction": Case(
        rule("round_robin", fraction=0.1), rule("round_robin", fraction=0.2), beside=AIMED
    ),
    "select.round_robin.count": Case(
        rule("round_robin", count=1), rule("round_robin", count=2), beside=AIMED
    ),
    "select.round_robin.subtasks": Case(
        rule("round_robin", count=1, subtasks=["corpus"]), rule("round_robin", count=1), beside=AIMED
    ),
    "target": Case(
        {"paths": "t"}, {"paths": "u"}, beside={"score.name": "less"}, idle=({"score.name": "davir"},)
    ),
    "warmup.fraction": Case(
        0.5, beside=AIMED, idle=({}, {**AIMED, "models.warmup.model_name_or_path": "w"}), reader=SOURCES
    ),
    "warmup.train": Case({"seed": 3}, beside=AIMED, idle=({},), reader="train/steps.py"),
    "export.formats": Case(["ids"]),
    "export.one_schema": Case(True, beside=TWO_SOURCES, idle=({},)),
    "export.rows_per_file": Case(10),
    "references.reference.fit": Case("cross", reader=SOURCES),
    "references.reference.fraction": Case(
        0.5,
        beside={"references.reference.fit": "sample"},
        idle=({}, {"references.reference.fit": "cross"}),
        reader=SOURCES,
    ),
    "references.reference.folds": Case(
        3,
        beside={"references.reference.fit": "cross"},
        idle=({}, {"references.reference.fit": "sample"}),
        reader=SOURCES,
    ),
    "references.target.start": Case(
        "warmup",
        beside={"references.target.fit": "target", "target.paths": "t", "score.name": "tov"},
        idle=({"references.target.fit": "cross"},),
        reader="train/steps.py",
    ),
    "references.reference.train": Case({"seed": 3}, reader="train/steps.py"),
    "train.objective": Case("dpo"),
    "train.corpus": Case({"paths": "x"}),
    "train.eval_corpus": Case({"paths": "x"}),
    "train.loss_type": Case("ipo", beside=PAIRS, idle=({}, SFT, DAVIR_DPO)),
    "train.beta": Case(0.5, beside=PAIRS, idle=({}, SFT)),
    "train.frozen_logps": Case("trainer", beside=DAVIR_DPO, idle=({}, SFT)),
    "train.lora.r": Case(4, beside=LORA),
    "train.lora.lora_alpha": Case(4, beside=LORA),
    "train.lora.lora_dropout": Case(0.1, beside=LORA),
    "train.lora.target_modules": Case(["q_proj"], "all-linear"),
    "train.lora.layers_to_transform": Case([3], beside=LORA),
    "train.lora.merge": Case(True, beside=LORA),
    "train.dtype": Case("bfloat16"),
    "train.num_train_epochs": Case(2.0, idle=({"train.max_steps": 4},)),
    "train.max_steps": Case(4),
    "train.per_device_train_batch_size": Case(2),
    "train.per_device_eval_batch_size": Case(2, beside=HELD_OUT, idle=({},)),
    "train.gradient_accumulation_steps": Case(2),
    "train.gradient_checkpointing": Case(True),
    "train.learning_rate": Case(0.1),
    "train.lr_scheduler_type": Case("linear"),
    "train.warmup_steps": Case(7, idle=({"train.lr_scheduler_type": "constant"},)),
    "train.weight_decay": Case(0.1),
    "train.max_grad_norm": Case(0.1),
    "train.train_sampling_strategy": Case("sequential"),
    "train.packing": Case(True, idle=(PAIRS, DAVIR_DPO)),
    "train.seed": Case(3),
    "train.logging_steps": Case(3),
    "train.eval_steps": Case(3, beside=HELD_OUT, idle=({},)),
    "train.save_steps": Case(3),
    "train.save_total_limit": Case(3, reader=FIT),
    "train.report_to": Case(["wandb"], reader="train/arguments.py"),
    "train.zero_stage": Case(3, idle=(OWN_DEEPSPEED,)),
    "train.offload_optimizer": Case(
        True, idle=({"train.zero_stage": 0}, {"train.zero_stage": None}, OWN_DEEPSPEED)
    ),
    "train.offload_param": Case(True, beside={"train.zero_stage": 3}, idle=({}, OWN_DEEPSPEED)),
    "train.deepspeed": Case({"bf16": {}}),
    "train.device": Case("cpu"),
    "train.wait_seconds": Case(5.0, reader=FIT),
    "train.num_workers": Case(2),
    "train.num_cpus_per_worker": Case(2.0, reader=FIT),
    "train.max_failures": Case(1, reader=FIT),
    "nightly.max_failed_fraction": Case(0.1, reader=LIMITS),
    "nightly.max_bad_files": Case(3, beside={"corpus.on_bad_file": "skip"}, idle=({},), reader=LIMITS),
    "nightly.max_coreset_change": Case(0.1, reader=LIMITS),
    "nightly.min_rank_correlation": Case(0.5, reader=LIMITS),
    "store": Case("elsewhere", reader="job/job.py"),
    "output": Case("elsewhere", reader="train/stage.py"),
}
ROWS_TO_TRAIN_ON = [
    (f"train.{corpus}.{name}", {f"train.{corpus}.paths": "x"})
    for corpus in ("corpus", "eval_corpus")
    for name in ("id", "source_by", "group_by")
]
IDLE = [(path, case.value, beside) for path, case in CASES.items() for beside in case.idle]
IDLE += [(path, "a_column", beside) for path, beside in ROWS_TO_TRAIN_ON]


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


def settings_of(recipe: type[BaseModel]) -> Iterator[tuple[str, bool]]:
    """Yield the path of each setting, and whether it is read only beside some others; each section once.

    Rules stand under their types, and a mapping of sections has a key of KEYS.
    """
    seen, left = set(), deque([("", recipe)])
    while left:
        path, section = left.popleft()
        if any(issubclass(section, one) for one in seen):
            yield path, False
            continue
        seen.add(section)
        for name, field in section.model_fields.items():
            inner = list(sections_in(field.annotation))
            marked = any(isinstance(one, ReadIf) for one in field.metadata)
            if marked or not inner:
                place = "references.target" if name == "start" else path  # of the other there is one start
                yield f"{place}.{name}".lstrip("."), marked
            for one in inner:
                kind = one.model_fields["type"].default if name == "select" else None
                key = kind or KEYS.get(name)
                left.append((".".join(filter(None, (path, name, key))), one))


def tree_of(path: str, value: Any, beside: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = deepcopy(SMALLEST)
    for name, one in {**beside, path: value}.items():
        *parents, last = name.split(".")
        node = tree
        if parents[:1] == ["select"]:
            parents, last, one = [], "select", [one]
        for parent in parents:
            node = node.setdefault(parent, {})
        if one is not ABSENT:
            node[last] = deepcopy(one)
    return tree


def names_of(recipe: Recipe) -> tuple[str, str]:
    return run_id_of(recipe, "x"), training_id_of(recipe.train, "x") if recipe.train else ""


@cache
def names_in(module: str) -> set[str]:
    """Return the names of the attributes that a module reads, and its texts, which `getattr` may take."""
    nodes = list(ast.walk(ast.parse((PACKAGE / module).read_text())))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return texts | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def test_every_setting_has_a_line_in_the_table():
    found = {path for path, _ in settings_of(Recipe) if not path.endswith(".type") or path == "engine.type"}
    assert found == set(CASES)


def test_every_setting_that_says_beside_what_it_is_read_is_refused_somewhere():
    assert [path for path, marked in settings_of(Recipe) if marked and not CASES[path].idle] == []


@pytest.mark.parametrize("path", CASES)
def test_a_setting_has_an_effect(path):
    case = CASES[path]
    one, other = (parse_recipe(tree_of(path, value, case.beside), "r") for value in (case.value, case.other))
    assert one != other
    assert (names_of(one) == names_of(other)) == bool(case.reader)
    modules = [case.reader] if case.reader else READERS
    assert any(path.split(".")[-1] in names_in(module) for module in modules)


@pytest.mark.parametrize(("path", "value", "beside"), IDLE)
def test_a_setting_without_effect_is_refused_at_its_line(tmp_path, path, value, beside):
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(tree_of(path, value, beside)))
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    if path.startswith("select."):
        assert "select.0: " in str(caught.value)  # in the words of the rule
        return
    lines = read_yaml(file.read_text())[1]
    where = f"{file} line {lines[tuple(path.split('.'))]}: {path}: has no effect: "
    assert any(line.startswith(where) for line in caught.value.lines)


def test_all_settings_without_effect_are_told_at_once():
    train = {"beta": 1.0, "frozen_logps": "store", "eval_steps": 3}
    with pytest.raises(RecipeError) as caught:
        parse_recipe(SMALLEST | {"train": train, "engine": {"type": "hash", "dtype": "float32"}}, "r")
    assert [line.split(": ")[1] for line in caught.value.lines] == [
        "engine.dtype",
        *(f"train.{one}" for one in train),
    ]


def test_a_default_is_refused_where_a_person_wrote_it_and_not_where_a_run_or_an_override_did():
    tree = SMALLEST | {"reference": {"folds": 2}}
    with pytest.raises(RecipeError, match=r"reference\.folds: has no effect: it is for fit cross"):
        parse_recipe(tree, "r")
    assert parse_recipe(tree, "r", as_written=False).reference.folds == 2
    assert parse_recipe(tree, "r", ["reference.fit=sample"]).reference.fit == "sample"
    whole = parse_recipe(SMALLEST | {"train": {}, "reference": {}}, "r")
    assert parse_recipe(whole.model_dump(mode="json"), "recipe.json", as_written=False) == whole


def test_settings_of_vllm_may_stand_beside_auto_and_a_score_of_ones_own_may_read_any():
    engine = {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5, "engine_args": {"a": 1}}
    for kind in ("auto", "vllm"):
        assert parse_recipe(SMALLEST | {"engine": {"type": kind, **engine}}, "r").engine.type == kind
    assert parse_recipe(SMALLEST | {"score": {"name": "mine:SCORE", "seed": 3, "min_loss": 0.5}}, "r")


@pytest.mark.parametrize("name", SCORES)
def test_a_score_names_the_settings_that_its_formula_reads(name):
    score, read = SCORES[name], set()

    class Watched(ScoreConfig):
        def __getattribute__(self, setting: str) -> Any:
            read.update({setting} & set(SETTINGS))
            return super().__getattribute__(setting)

    config = Watched(name=name)
    read.clear()
    lists = {name: [[1.0, 2.0, 3.0]] * 4 for name in ("losses", "vector")} | {"ranks": [[1, 2, 3]] * 4}
    lists["cosines"] = [[0.5]] * 4
    columns = {need: pa.table({"loss": np.arange(1.0, 5.0), **lists}) for need in score.needs}
    target = TargetMeasured(("a",), (1.0,), {"base": {"a": np.ones((2, 3), np.float32)}})
    rows = Measured(columns, {view: np.full(4, 3) for view in View}, np.array([b"x" * 16] * 4), target)
    surveyed = () if score.survey is None else ((np.ones(2**16, dtype=np.int64),) * score.survey.rounds,)
    score.compute(rows, config, *surveyed)
    assert read == set(score.settings)

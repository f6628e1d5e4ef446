"""What is trained on: a core-set, a corpus, or the share of it that a reference is made from."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from davir_ray.config import CorpusConfig, ModelConfig, ModelsConfig, ReferenceConfig, TrainConfig
from davir_ray.corpus.folds import Fold
from davir_ray.errors import DamagedPart, StoreError, TrainingError
from davir_ray.ids import keys_of
from davir_ray.influence.checkpoint import check_not_quantised
from davir_ray.inputs import Inputs, check_inputs, check_score
from davir_ray.job import engine_for, name_run, scan_folder
from davir_ray.recipe import Recipe
from davir_ray.runs.history import past_runs
from davir_ray.runs.record import RunRecord
from davir_ray.runs.run import NOT_IN_RUN_ID, Run
from davir_ray.schema import Need
from davir_ray.storage.damage import set_aside
from davir_ray.train.checks import needs_of
from davir_ray.train.pick import CoreSet, Everything, Outside, Pick, Sample


@dataclass(frozen=True)
class Source:
    """Rows to train on. pick: which of the rows of `inputs`; what: that in words; digest: a name for the choice.

    inputs: its base is what is trained. listed: whether a training on other files is another one. few: a batch is no
    larger than all of them. keeps_epochs: each epoch leaves a checkpoint with the optimiser's moments.
    """

    inputs: Inputs
    pick: Pick
    what: str
    digest: str
    listed: bool = True
    few: bool = False
    keeps_epochs: bool = False

    @property
    def rows_digest(self) -> str:
        """Name the rows of the corpus, or where the files may be others, how they are found and read."""
        if self.listed:
            return self.inputs.tokens_digest
        corpus = self.inputs.recipe.corpus
        return f"{self.inputs.settings_digest} {corpus.paths} {corpus.limit}"


def reference_sources(recipe: Recipe, reference: ReferenceConfig) -> list[Source]:
    """Name the rows that the reference, or the reference of each fold, is trained on."""
    inputs = check_inputs(recipe, needs=())
    check_score(recipe, inputs.listing)  # a reference is made for the score
    return [Source(inputs, pick, what, what) for what, pick in picks_of(reference).items()]


def warmup_source(recipe: Recipe) -> Source:
    """Name the rows of the warm-up. A night with new files uses the old one again: its name does not hold them."""
    inputs = check_inputs(recipe, needs=())
    inputs.base.check_here()
    check_not_quantised(inputs.base.model_path)
    share = recipe.warmup.fraction
    what = f"a sample of {share} of the corpus, to warm up"
    return Source(inputs, Sample(share), what, what, listed=False, few=True, keeps_epochs=True)


def target_source(recipe: Recipe, train: TrainConfig, start: ModelConfig) -> Source:
    """Name the rows of the target, for a training that begins from a model."""
    models = ModelsConfig(base=start)
    on_target = recipe.model_copy(update={"corpus": recipe.target, "models": models})
    inputs = check_inputs(on_target, needs_of(train), section="target")
    return Source(inputs, Everything(), "the target", "all", few=True)


def picks_of(reference: ReferenceConfig) -> dict[str, Pick]:
    """Say in words and in code which rows a reference is trained on."""
    if reference.fit == "whole":
        return {"the whole corpus": Everything()}
    if reference.fit == "sample":
        return {f"a sample of {reference.fraction} of the corpus": Sample(reference.fraction)}
    folds = [Fold(index, reference.folds) for index in range(reference.folds)]
    return {f"the corpus without fold {fold.index} of {fold.folds}": Outside(fold) for fold in folds}


def training_source(recipe: Recipe, name: str, train: TrainConfig) -> Source:
    """Name the rows of `train.corpus`, or of the core-set of the run that the recipe makes under this name."""
    if train.corpus is None:
        return core_set_source(recipe, name, needs_of(train))
    return _whole(recipe, train, train.corpus, "train.corpus")


def held_out_source(recipe: Recipe, train: TrainConfig) -> Source | None:
    """Name the rows of `train.eval_corpus`, if there is one."""
    if train.eval_corpus is None:
        return None
    return _whole(recipe, train, train.eval_corpus, "train.eval_corpus")


def _whole(recipe: Recipe, train: TrainConfig, corpus: CorpusConfig, section: str) -> Source:
    inputs = check_inputs(recipe.model_copy(update={"corpus": corpus}), needs_of(train), section=section)
    return Source(inputs, Everything(), section, "all")


def core_set_source(recipe: Recipe, name: str, needs: tuple[Need, ...]) -> Source:
    """Name the rows of a core-set. Raises `TrainingError` if its run is not finished."""
    inputs = check_inputs(recipe)
    run_id = name_run(inputs, engine_for(inputs), name)
    run = Run.in_output(recipe.output, run_id)
    if (record := run.record(RunRecord)) is None:
        raise TrainingError(
            f"run {run_id} has no core-set yet; `davir score` makes it, `davir run` does all"
            + _finished_instead(recipe, name)
        )
    if not record.selected:
        raise TrainingError(
            f"run {run_id} chose nothing: there is no row to train on; `davir score` says why"
        )
    try:
        core_set = read_core_set(run.paths.scored)
    except DamagedPart as damage:
        set_aside(damage)
        raise StoreError(f"{damage}; `davir score` or `davir run` makes it again") from damage
    return Source(inputs.measuring(needs), core_set, f"the core-set of {run_id}", digest_of(core_set))


def _finished_instead(recipe: Recipe, name: str) -> str:
    """Name the latest finished run of a name, and what to write to mean it; empty if there is none."""
    if not (past := past_runs(recipe.output, name)):
        return ""
    run = past[-1]
    ours, theirs = (_settings(one) for one in (recipe.model_dump(mode="json"), run.recipe))
    other = {key: value for key, value in theirs.items() if ours.get(key, value) != value}
    if not other:
        return (
            f". Finished is {run.run_id}, whose corpus (files, sizes or times), models or engine were others"
        )
    written = " ".join(f"--set {shlex.quote(f'{key}={json.dumps(value)}')}" for key, value in other.items())
    return f". Finished is {run.run_id}: to train on its core-set, add {written}"


def _settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Name as `section.setting` what a recipe, given as plain data, says of the result of a run."""
    found: dict[str, Any] = {}
    for section, values in tree.items():
        skipped = NOT_IN_RUN_ID.get(section, ())
        if skipped is True:
            continue
        one = values if isinstance(values, Mapping) else {"": values}
        found |= {f"{section}.{key}".rstrip("."): one[key] for key in one if key not in skipped}
    return found


def read_core_set(scored: str) -> CoreSet:
    """Read from a scored table which examples were chosen."""
    columns = ["example_id", "rank", "selected"]
    table = pa.concat_tables(one.filter(one["selected"]) for one in scan_folder(scored, columns))
    keys, index = np.unique(keys_of(table["example_id"]), return_index=True)
    return CoreSet(keys, table["rank"].to_numpy()[index])


def digest_of(core_set: CoreSet) -> str:
    """Name a core-set by its examples in the order of their ranks."""
    ordered = core_set.example_ids[np.argsort(core_set.rank)]
    return blake2b(np.ascontiguousarray(ordered).tobytes(), digest_size=16).hexdigest()

"""Everything that a run is about, checked before an accelerator is claimed: corpus, models, tokenizers, score."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from itertools import islice, product, zip_longest
from pathlib import Path
from typing import Any, TypeVar

from davir_ray import storage
from davir_ray.cluster.unexpected import stage
from davir_ray.config import CorpusConfig, ModelConfig, ModelsConfig, TrainConfig
from davir_ray.corpus.example import Example
from davir_ray.corpus.formats import is_paired
from davir_ray.corpus.listing import Listing, list_corpus
from davir_ray.corpus.misfits import no_row_fits
from davir_ray.corpus.reading import Parsed, examples
from davir_ray.corpus.split import Split
from davir_ray.errors import CorpusError, ModelError, RecipeError, RowError, UnreadableFile
from davir_ray.influence.kinds import InfluenceKind
from davir_ray.influence.projected import ProjectedKind
from davir_ray.logprobs.choice import Choice
from davir_ray.measure.kind import KINDS, Kind, resolve_kind, strongest
from davir_ray.models.resolve import Models, ResolvedModel, resolve_all
from davir_ray.recipe import Recipe
from davir_ray.schema import COMPLETIONS, ROLES, Need, View, model_names
from davir_ray.scores import resolve_score
from davir_ray.scores.score import Score
from davir_ray.target.rows import FewShot, read_target
from davir_ray.tokens.agreement import check_agreement
from davir_ray.tokens.templates import TEMPLATES
from davir_ray.tokens.tokenizer import Tokenizer, load_tokenizer, tokenizer_identity
from davir_ray.tokens.views import sequences, views_in

C = TypeVar("C", bound=CorpusConfig)

ROWS_SAMPLED = 256
"""Rows of each source that are looked at before anything is measured; on as many base and reference are compared."""
SPLITS_SAMPLED = 8
"""Splits of each source that these rows are taken from, and so the files that are opened."""


def in_submitted_job() -> bool:
    """Tell whether this process is the driver of `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


@dataclass(frozen=True)
class Inputs:
    """What a run works on. needs: what the score, the rules and the export ask for; of a series, of each model in it.

    models: by the names that needs have for them. few_shot: the rows of `target`, if there is one.
    unscorable: source -> why none of the rows of its sample can be scored; others do not stand there.
    """

    recipe: Recipe
    listing: Listing
    score: Score
    models: Models
    tokenizer: Tokenizer
    needs: tuple[Need, ...]
    few_shot: FewShot | None = None
    unscorable: Mapping[str, str] = field(default_factory=dict)

    @property
    def base(self) -> ResolvedModel:
        """The model that all others were made from."""
        return self.models["base"][0]

    @property
    def references(self) -> tuple[ResolvedModel, ...]:
        """The reference, or the references of all folds."""
        return self.models.get("reference", ())

    @property
    def all_models(self) -> list[ResolvedModel]:
        """Every model, each once."""
        return list({one.identity: one for some in self.models.values() for one in some}.values())

    def check_checkpoints(self) -> None:
        """Check that gradients can be taken under the models that are asked for them. Raises `ModelError`."""
        for name, kind in self.passes:
            if isinstance(one := resolve_kind(kind), InfluenceKind | ProjectedKind):
                for model in self.models[name]:
                    if model.model_path:  # one that is not there was measured under before
                        one.check_model(model)

    @property
    def target_digest(self) -> str | None:
        """Name the rows of the target; None where nothing depends on them."""
        if self.few_shot is None:
            return None
        return self.few_shot.digest

    def kind(self, name: str) -> Kind:
        """Return a kind of measurement with all that decides its numbers: some are aimed at the target."""
        kind = resolve_kind(name)
        if not isinstance(kind, InfluenceKind) or self.few_shot is None:
            return kind
        return kind.aimed(self.few_shot.target)

    @property
    def base_is_reference(self) -> bool:
        """Whether a reference has the base's very weights."""
        return any(model.identity == self.base.identity for model in self.references)

    def measuring(self, needs: tuple[Need, ...]) -> "Inputs":
        """The same corpus and base with other needs and no reference, as `check_inputs` with `needs` finds them."""
        recipe = self.recipe.model_copy(update={"models": ModelsConfig(base=self.recipe.models.base)})
        return replace(self, recipe=recipe, models={"base": (self.base,)}, needs=needs, few_shot=None)

    @property
    def views(self) -> tuple[View, ...]:
        """The views that rows are tokenised in, in the order of `View`."""
        wanted = {View.RESPONSE, *(need.view for need in self.needs)}
        return tuple(view for view in View if view in wanted)

    def views_in(self, example: Example) -> list[View]:
        """The views that one example is tokenised in: only a pair has a rejected side."""
        return views_in(example, self.views)

    @property
    def passes(self) -> dict[tuple[str, str], tuple[View, ...]]:
        """The views to measure by model and kind, in order; a kind that another one implies goes with it.

        `measure.kind` takes the place of the kinds that it implies, but for what only an export asks for.
        """
        kept = self.recipe.measure.kind
        raised = [
            need._replace(kind=kept)
            for need in self.needs
            if need.kind in KINDS[kept].implies and need.view not in COMPLETIONS
        ]
        found: dict[tuple[str, str], tuple[View, ...]] = {}
        for model, view in product(self.models, self.views):
            needs = [need for need in (*self.needs, *raised) if (need.model, need.view) == (model, view)]
            kinds = [need.kind for need in needs]
            for kind in strongest(kinds):
                found[model, kind] = (*found.get((model, kind), ()), view)
        return found

    @cached_property
    def settings_digest(self) -> str:
        """Name everything beside the rows that decides their token ids."""
        corpus = self.recipe.corpus.model_dump_json(
            exclude={"paths", "dataset_info", "datasets", "on_bad_file", "limit"}
        )
        parts = [
            corpus,
            self.recipe.tokens.model_dump_json(),
            tokenizer_identity(self.tokenizer),
            *self.views,
        ]
        return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    @property
    def tokens_digest(self) -> str:
        """Name everything that decides the token ids of the corpus."""
        text = self.settings_digest + self.listing.digest
        return blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of the models and the corpus before anything is measured, a line each."""
        same = "the reference is the model that the base is: their losses are equal on every row"
        doubts = [model.doubt for model in self.all_models if model.doubt]
        sources = [f"corpus.paths.{source}: {why}" for source, why in self.unscorable.items()]
        upside_down = self.score.lowest_first and self.recipe.score.order == "highest"
        order = f"the lowest values of {self.score.name} are the best; `score.order: lowest` ranks them first"
        found = [*([same] if self.base_is_reference else []), *([order] if upside_down else [])]
        not_read = self.few_shot.not_read if self.few_shot else {}
        idle = [
            f"target.paths.{name}: nothing reads {', '.join(columns)}" for name, columns in not_read.items()
        ]
        return tuple(dict.fromkeys([*found, *doubts, *sources, *idle]))

    def parsed(self) -> Iterator[tuple[Split, Parsed]]:
        """Read the rows of the corpus; a file found to be damaged is left where it breaks, if those are skipped."""
        for split in self.listing.splits:
            for one in self._rows(split):
                yield split, one

    def _rows(self, split: Split) -> Iterator[Parsed]:
        try:
            yield from examples(split, self.recipe.corpus, self.listing.formats[split.source])
        except UnreadableFile:
            if self.recipe.corpus.on_bad_file == "error":
                raise

    def samples(self) -> dict[str, list[Example]]:
        """Return source -> those of its sampled rows that parse; if no row does, the first ones of the corpus that do.

        Of a source rows at the beginning of a few splits are sampled, as many of each, however many splits there are.
        """
        splits: dict[str, list[Split]] = {}
        for split in self.listing.splits:
            splits.setdefault(split.source, []).append(split)
        found = {
            source: self._sampled(some[:: -(-len(some) // SPLITS_SAMPLED)]) for source, some in splits.items()
        }
        if not any(found.values()):
            parsing = ((split.source, one.example) for split, one in self.parsed() if one.example is not None)
            for source, example in islice(parsing, ROWS_SAMPLED):
                found[source].append(example)
        return {source: some for source, some in found.items() if some}

    def _sampled(self, splits: Sequence[Split]) -> list[Example]:
        rows = (one for split in splits for one in islice(self._rows(split), ROWS_SAMPLED // len(splits)))
        return [one.example for one in rows if one.example is not None]


def anchored(recipe: Recipe) -> Recipe:
    """Make the local paths of a recipe absolute: workers may run in another folder than the driver."""
    if in_submitted_job():
        for name, uri in (("store", recipe.store), ("output", recipe.output)):
            if uri == os.path.relpath(uri) and "://" not in uri:
                raise RecipeError(
                    f"{name}: {uri} would lie in the job's temporary copy of the working folder; give an absolute "
                    "path that all nodes share, or a URI"
                )
    template = recipe.tokens.template
    tokens = {} if template in TEMPLATES else {"template": storage.absolute(template)}
    update = {
        "corpus": _anchored_corpus(recipe.corpus),
        "tokens": recipe.tokens.model_copy(update=tokens),
        "models": _anchored_models(recipe.models),
        "train": recipe.train and _anchored_training(recipe.train),
        "target": recipe.target and _anchored_corpus(recipe.target),
        "warmup": recipe.warmup.model_copy(update={"train": _anchored_training(recipe.warmup.train)}),
        "references": {
            name: one.model_copy(update={"train": _anchored_training(one.train)})
            for name, one in recipe.references.items()
        },
        "store": storage.absolute(recipe.store),
        "output": storage.absolute(recipe.output),
    }
    return recipe.model_copy(update=update)


def _anchored_corpus(corpus: C) -> C:
    paths = {source: tuple(map(storage.absolute, some)) for source, some in corpus.paths.items()}
    return corpus.model_copy(update={"paths": paths})


def _anchored_training(train: TrainConfig) -> TrainConfig:
    update: dict[str, Any] = {
        name: _anchored_corpus(corpus)
        for name, corpus in (("corpus", train.corpus), ("eval_corpus", train.eval_corpus))
        if corpus is not None
    }
    if isinstance(train.deepspeed, str):
        update["deepspeed"] = storage.absolute(train.deepspeed)
    return train.model_copy(update=update)


def _anchored_models(models: ModelsConfig) -> ModelsConfig:
    anchored: dict[str, Any] = {"base": _anchored_model(models.base)}
    for role in ROLES[1:]:
        named = getattr(models, role)
        anchored[role] = (
            tuple(map(_anchored_model, named))
            if isinstance(named, tuple)
            else named and _anchored_model(named)
        )
    return ModelsConfig(**anchored)


def _anchored_model(model: ModelConfig) -> ModelConfig:
    """Make the paths of a model absolute where they are folders; what is no folder is a hub id or a URI."""
    names = {
        "model_name_or_path": model.model_name_or_path,
        "adapter_name_or_path": model.adapter_name_or_path,
    }
    folders = {field: name for field, name in names.items() if name and Path(name).expanduser().is_dir()}
    return model.model_copy(update={field: storage.absolute(name) for field, name in folders.items()})


PAIRS = (Need("loss", "base", View.RESPONSE), Need("loss", "base", View.REJECTED))
"""The frozen log-probabilities of preference pairs."""
EXPORTED_PAIRS = (Need("loss", "base", View.COMPLETION), Need("loss", "base", View.REJECTED_COMPLETION))
"""The same, of exactly what TRL trains on."""


def _needs(recipe: Recipe, score: Score, listing: Listing) -> tuple[Need, ...]:
    """Collect what the score, the rules and the export of pairs ask for."""
    rules = [need for rule in recipe.select for need in rule.needs]
    pairs = EXPORTED_PAIRS if "trl_frozen" in recipe.export.formats else ()
    if pairs and not listing.has_pairs:
        raise RecipeError(
            "export.formats: trl_frozen is for preference pairs, and the corpus holds none; say trl"
        )
    if "trl_reward" in recipe.export.formats and not listing.has_pairs:
        raise RecipeError("export.formats: trl_reward is for preference pairs, and the corpus holds none")
    paired = {is_paired(name) for name in listing.formats.values()}
    if "llama_factory" in recipe.export.formats and recipe.export.one_schema and len(paired) > 1:
        raise RecipeError(
            "export.formats: llama_factory keeps pairs and conversations in files of their own, which "
            "export.one_schema puts together; leave that out"
        )
    return tuple(dict.fromkeys([*score.needs, *rules, *pairs]))


def check_inputs(
    recipe: Recipe,
    needs: tuple[Need, ...] | None = None,
    measured_under: Callable[[], Mapping[str, Sequence[str]]] | None = None,
) -> Inputs:
    """Load what a run is about, and check that its parts fit each other. Raises a `DavirError` that says what not.

    `needs` takes the place of what the recipe asks to measure; then no reference is looked at. measured_under: see
    `resolve_all`.
    """
    inputs = load_inputs(recipe, needs, measured_under)
    samples = inputs.samples()
    if not samples:
        raise CorpusError(*no_row_fits(inputs.parsed(), inputs.recipe.corpus, inputs.listing.formats))
    _check_length(inputs)
    inputs = replace(inputs, unscorable=_unscorable(inputs, samples))
    turns = (example for turn in zip_longest(*samples.values()) for example in turn if example is not None)
    compared = list(islice(turns, ROWS_SAMPLED))
    for reference in inputs.all_models[1:]:
        if reference.tokenizer_path:  # one that is not there has none
            theirs = load_tokenizer(reference.tokenizer_path, inputs.recipe.tokens)
            check_agreement(inputs.tokenizer, theirs, compared, inputs.recipe.tokens)
    return inputs


def load_inputs(
    recipe: Recipe,
    needs: tuple[Need, ...] | None = None,
    measured_under: Callable[[], Mapping[str, Sequence[str]]] | None = None,
) -> Inputs:
    """Load what a run is about, and look at no row of it; the same arguments as `check_inputs`."""
    recipe = anchored(recipe)
    score = resolve_score(recipe.score.name)
    if needs is not None:
        recipe = recipe.model_copy(update={"models": ModelsConfig(base=recipe.models.base)})
    else:
        _check_named(recipe, score)
    with stage(CorpusError):
        listing = list_corpus(recipe.corpus, recipe.corpus.limit)
    if needs is None:
        check_score(recipe, listing)
        needs = _needs(recipe, score, listing)
    with stage(ModelError):
        models = resolve_all(recipe.models, measured_under=measured_under)
        tokenizer = load_tokenizer(models["base"][0].tokenizer_path, recipe.tokens)
    _check_kinds(recipe, score)
    inputs = Inputs(recipe, listing, score, models, tokenizer, tuple(_of_series(needs, recipe.models)))
    return replace(inputs, few_shot=_few_shot(inputs))


def _check_named(recipe: Recipe, score: Score) -> None:
    """Check that the models that a score measures are named. Raises `RecipeError`."""
    for role in dict.fromkeys(need.model for need in score.needs):
        if role not in ROLES:
            raise RecipeError(
                f"score.name: {score.name} measures under {role}; expected one of {', '.join(ROLES)}"
            )
        if not recipe.models.all_of(role):
            raise RecipeError(
                f"score.name: {score.name} measures under models.{role}, which the recipe does not name"
            )


def _check_kinds(recipe: Recipe, score: Score) -> None:
    """Check that an engine that is named gives what the score needs: before a model is trained for it, too."""
    named = recipe.engine.type
    if named != "auto":
        for kind in dict.fromkeys(need.kind for need in score.needs):
            resolve_kind(kind).check(
                Choice(named, recipe.engine.dtype, recipe.engine.device, "as the recipe asks")
            )


def _of_series(needs: Sequence[Need], models: ModelsConfig) -> Iterator[Need]:
    """Name each model of a series that is needed."""
    for need in needs:
        count = len(models.all_of(need.model)) if need.model in ROLES else 1
        yield from (need._replace(model=name) for name in model_names(need.model, count))


@stage(CorpusError)
def _few_shot(inputs: Inputs) -> FewShot | None:
    """Read the rows of the target, if there is one: all that is wrong with them is told before anything is made."""
    recipe = inputs.recipe
    if recipe.target is None:
        return None
    pairs = inputs.score.of_target_pairs
    return read_target(recipe.target, recipe.tokens, inputs.tokenizer, pairs=pairs)


def check_score(recipe: Recipe, listing: Listing) -> None:
    """Check that the score is defined for what the corpus holds. Raises `RecipeError`."""
    score = resolve_score(recipe.score.name)
    if score.pairs_only and not listing.has_pairs:
        formats = ", ".join(sorted(set(listing.formats.values())))
        raise RecipeError(
            f"score.name: {score.name} is defined for preference pairs alone, and the corpus holds none (format "
            f"{formats}); `davir scores` lists the others, `davir formats` shows what a pair looks like"
        )


def _check_length(inputs: Inputs) -> None:
    """Check that every model takes sequences of `tokens.max_length`; what is longer would fail row by row."""
    asked = inputs.recipe.tokens.max_length
    for model in inputs.all_models:
        positions = model.positions if model.model_path else None
        if positions is not None and asked > positions:
            raise RecipeError(
                f"tokens.max_length: {asked} is above the {positions} positions of {model.model_path} (its "
                f"config.json); set it to {positions} or less"
            )


def _unscorable(inputs: Inputs, samples: Mapping[str, Sequence[Example]]) -> dict[str, str]:
    """Return source -> why the template, the tokenizer and the settings let none of its sampled rows be scored.

    Raises `CorpusError` if that is so of all sources.
    """
    refused = {source: _refusals(inputs, sample) for source, sample in samples.items()}
    if all(refused.values()):
        raise CorpusError(_none_of(sum(refused.values(), Counter[str]())))
    return {source: _none_of(reasons) for source, reasons in refused.items() if reasons}


def _refusals(inputs: Inputs, sample: Sequence[Example]) -> Counter[str]:
    """Count why rows cannot be scored; empty if one of them can."""
    reasons = Counter[str]()
    for example in sample:
        try:
            sequences(example, inputs.tokenizer, inputs.recipe.tokens, inputs.views_in(example))
        except RowError as error:
            reasons[f"{error.status}: {error.reason}"] += 1
        else:
            return Counter()
    return reasons


def _none_of(reasons: Counter[str]) -> str:
    reason, count = reasons.most_common(1)[0]
    return (
        f"none of the {reasons.total()} rows that were looked at can be scored; {count} of them with {reason} "
        "(`davir inspect` shows each)"
    )

"""Everything that a run is about, checked before an accelerator is claimed: corpus, models, tokenizers, score."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from itertools import islice, product, zip_longest
from pathlib import Path
from typing import Any

from davir_ray import storage
from davir_ray.cluster.unexpected import stage
from davir_ray.config import CorpusConfig, ModelConfig, ModelsConfig, TrainConfig
from davir_ray.corpus.example import Example
from davir_ray.corpus.listing import Listing, list_corpus
from davir_ray.corpus.misfits import no_row_fits
from davir_ray.corpus.reading import Parsed, examples
from davir_ray.corpus.split import Split
from davir_ray.errors import CorpusError, ModelError, RecipeError, RowError, UnreadableFile
from davir_ray.measure.kind import KINDS, strongest
from davir_ray.models.resolve import ResolvedModel, resolve_all
from davir_ray.recipe import Recipe
from davir_ray.schema import COMPLETIONS, ROLES, Need, Role, View
from davir_ray.scores import resolve_score
from davir_ray.scores.score import Score
from davir_ray.tokens.agreement import check_agreement
from davir_ray.tokens.templates import TEMPLATES
from davir_ray.tokens.tokenizer import Tokenizer, load_tokenizer, tokenizer_identity
from davir_ray.tokens.views import sequences, views_in

ROWS_SAMPLED = 256
"""Rows of each source that are looked at before anything is measured; on as many base and reference are compared."""
SPLITS_SAMPLED = 8
"""Splits of each source that these rows are taken from, and so the files that are opened."""


def in_submitted_job() -> bool:
    """Tell whether this process is the driver of `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


@dataclass(frozen=True)
class Inputs:
    """What a run works on. needs: what the score, the rules and the export ask for.

    unscorable: source -> why none of the rows of its sample can be scored; others do not stand there.
    """

    recipe: Recipe
    listing: Listing
    score: Score
    base: ResolvedModel
    references: tuple[ResolvedModel, ...]
    tokenizer: Tokenizer
    needs: tuple[Need, ...]
    unscorable: Mapping[str, str] = field(default_factory=dict)

    def models_of(self, role: Role) -> tuple[ResolvedModel, ...]:
        """The model of a role, or one a fold."""
        return (self.base,) if role == "base" else self.references

    @property
    def base_is_reference(self) -> bool:
        """Whether a reference has the base's very weights."""
        return any(model.identity == self.base.identity for model in self.references)

    def measuring(self, needs: tuple[Need, ...]) -> "Inputs":
        """The same corpus and base with other needs and no reference, as `check_inputs` with `needs` finds them."""
        recipe = self.recipe.model_copy(update={"models": ModelsConfig(base=self.recipe.models.base)})
        return replace(self, recipe=recipe, references=(), needs=needs)

    @property
    def views(self) -> tuple[View, ...]:
        """The views that rows are tokenised in, in the order of `View`."""
        wanted = {View.RESPONSE, *(need.view for need in self.needs)}
        return tuple(view for view in View if view in wanted)

    def views_in(self, example: Example) -> list[View]:
        """The views that one example is tokenised in: only a pair has a rejected side."""
        return views_in(example, self.views)

    @property
    def passes(self) -> dict[tuple[Role, str], tuple[View, ...]]:
        """The views to measure by model and kind, in order; a kind that another one implies goes with it.

        `measure.kind` takes the place of the kinds that it implies, but for what only an export asks for.
        """
        kept = self.recipe.measure.kind
        raised = [
            need._replace(kind=kept)
            for need in self.needs
            if need.kind in KINDS[kept].implies and need.view not in COMPLETIONS
        ]
        found: dict[tuple[Role, str], tuple[View, ...]] = {}
        for role, view in product(ROLES, self.views):
            needs = [need for need in (*self.needs, *raised) if (need.model, need.view) == (role, view)]
            kinds = [need.kind for need in needs]
            for kind in strongest(kinds):
                found[role, kind] = (*found.get((role, kind), ()), view)
        return found

    @cached_property
    def settings_digest(self) -> str:
        """Name everything beside the rows that decides their token ids."""
        corpus = self.recipe.corpus.model_dump_json(exclude={"paths", "on_bad_file", "limit"})
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
        doubts = [model.doubt for model in (self.base, *self.references) if model.doubt]
        sources = [f"corpus.paths.{source}: {why}" for source, why in self.unscorable.items()]
        upside_down = self.score.lowest_first and self.recipe.score.order == "highest"
        order = f"the lowest values of {self.score.name} are the best; `score.order: lowest` ranks them first"
        found = [*([same] if self.base_is_reference else []), *([order] if upside_down else [])]
        return tuple(dict.fromkeys([*found, *doubts, *sources]))

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
        "reference": recipe.reference
        and recipe.reference.model_copy(update={"train": _anchored_training(recipe.reference.train)}),
        "store": storage.absolute(recipe.store),
        "output": storage.absolute(recipe.output),
    }
    return recipe.model_copy(update=update)


def _anchored_corpus(corpus: CorpusConfig) -> CorpusConfig:
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
    reference: Any = models.reference
    if isinstance(reference, tuple):
        reference = tuple(map(_anchored_model, reference))
    elif reference is not None:
        reference = _anchored_model(reference)
    return ModelsConfig(base=_anchored_model(models.base), reference=reference)


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
    return tuple(dict.fromkeys([*score.needs, *rules, *pairs]))


def check_inputs(
    recipe: Recipe,
    needs: tuple[Need, ...] | None = None,
    measured_under: Callable[[], Sequence[str]] | None = None,
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
    for reference in inputs.references:
        if reference.tokenizer_path:  # one that is not there has none
            theirs = load_tokenizer(reference.tokenizer_path, inputs.recipe.tokens)
            check_agreement(inputs.tokenizer, theirs, compared, inputs.recipe.tokens)
    return inputs


def load_inputs(
    recipe: Recipe,
    needs: tuple[Need, ...] | None = None,
    measured_under: Callable[[], Sequence[str]] | None = None,
) -> Inputs:
    """Load what a run is about, and look at no row of it; the same arguments as `check_inputs`."""
    recipe = anchored(recipe)
    score = resolve_score(recipe.score.name)
    if needs is not None:
        recipe = recipe.model_copy(update={"models": ModelsConfig(base=recipe.models.base)})
    elif any(need.model == "reference" for need in score.needs) and not recipe.models.references:
        raise RecipeError(
            f"score.name: {score.name} compares with models.reference, which the recipe does not name"
        )
    with stage(CorpusError):
        listing = list_corpus(recipe.corpus, recipe.corpus.limit)
    if needs is None:
        check_score(recipe, listing)
        needs = _needs(recipe, score, listing)
    with stage(ModelError):
        base, references = resolve_all(recipe.models, measured_under=measured_under)
        tokenizer = load_tokenizer(base.tokenizer_path, recipe.tokens)
    return Inputs(recipe, listing, score, base, references, tokenizer, needs)


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
    for model in (inputs.base, *inputs.references):
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

"""A recipe -> what the run is about, with all that does not fit told before an accelerator is claimed."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, zip_longest

from davir_ray.cluster.unexpected import stage
from davir_ray.config import ModelsConfig
from davir_ray.corpus.example import Example
from davir_ray.corpus.formats import is_paired
from davir_ray.corpus.listing import Listing, list_corpus
from davir_ray.corpus.misfits import no_row_fits
from davir_ray.errors import CorpusError, ModelError, RecipeError, RowError
from davir_ray.inputs.anchored import anchored
from davir_ray.inputs.inputs import ROWS_SAMPLED, Inputs
from davir_ray.logprobs.choice import Choice
from davir_ray.measure.kind import resolve_kind
from davir_ray.models.resolve import resolve_all
from davir_ray.recipe import Recipe
from davir_ray.runs.trackers import check_trackers
from davir_ray.schema import ROLES, Need, View, model_names
from davir_ray.scores import resolve_score
from davir_ray.scores.score import Score
from davir_ray.target.rows import FewShot, read_target
from davir_ray.tokens.agreement import check_agreement
from davir_ray.tokens.tokenizer import load_tokenizer
from davir_ray.tokens.views import sequences

PAIRS = (Need("loss", "base", View.RESPONSE), Need("loss", "base", View.REJECTED))
"""The frozen log-probabilities of preference pairs."""
EXPORTED_PAIRS = (Need("loss", "base", View.COMPLETION), Need("loss", "base", View.REJECTED_COMPLETION))
"""The same, of exactly what TRL trains on."""


def check_inputs(
    recipe: Recipe,
    needs: tuple[Need, ...] | None = None,
    measured_under: Callable[[], Mapping[str, Sequence[str]]] | None = None,
    section: str = "corpus",
) -> Inputs:
    """Load what a run is about, and check that its parts fit each other. Raises a `DavirError` that says what not.

    `needs` takes the place of what the recipe asks to measure; then no reference is looked at. measured_under: see
    `resolve_all`. section: where the recipe's author named what stands in `recipe.corpus`.
    """
    inputs = load_inputs(recipe, needs, measured_under, section)
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
    section: str = "corpus",
) -> Inputs:
    """Load what a run is about, and look at no row of it; the same arguments as `check_inputs`."""
    recipe = anchored(recipe)
    score = resolve_score(recipe.score.name)
    if needs is not None:
        recipe = recipe.model_copy(update={"models": ModelsConfig(base=recipe.models.base)})
    else:
        _check_named(recipe, score)
        check_trackers("report_to", recipe.report_to)
    with stage(CorpusError):
        listing = list_corpus(recipe.corpus, recipe.corpus.limit, section)
    if needs is None:
        check_score(recipe, listing)
        needs = _needs(recipe, score, listing)
    with stage(ModelError):
        models = resolve_all(recipe.models, measured_under=measured_under)
        tokenizer = load_tokenizer(models["base"][0].tokenizer_path, recipe.tokens)
    _check_kinds(recipe, score)
    inputs = Inputs(recipe, listing, score, models, tokenizer, tuple(_of_series(needs, recipe.models)))
    return replace(inputs, few_shot=_few_shot(inputs))


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

"""What a recipe does to rows, shown before an accelerator is claimed: `davir validate` and `davir inspect`."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice

from davir_ray.corpus.formats import FORMATS
from davir_ray.corpus.listing import Listing
from davir_ray.corpus.reading import Parsed, examples
from davir_ray.corpus.split import Split
from davir_ray.doctor.reach import check_writable
from davir_ray.errors import RowError, UnreadableFile
from davir_ray.inputs import Inputs, check_inputs, check_score, load_inputs
from davir_ray.logprobs.choice import check_adapters
from davir_ray.models.resolve import ResolvedModel
from davir_ray.recipe import Recipe
from davir_ray.schema import Need, Role, Status
from davir_ray.scores.score import pass_of
from davir_ray.target.rows import FewShot, FewShotRow
from davir_ray.tokens.not_read import first_not_read
from davir_ray.tokens.preview import bracketed, coloured
from davir_ray.tokens.views import ViewTokens, sequences
from davir_ray.train.checks import check_base, check_corpora, check_settings, with_deepspeed

ROWS_SHOWN = 3
ROWS_LOOKED_AT = 256
"""Rows of each source in which columns and keys are looked for that nothing reads."""


def validate(recipe: Recipe, *, colour: bool) -> Iterator[str]:
    """Check everything that can be checked without an accelerator; yield what was found, line by line."""
    inputs = check_inputs(recipe, _needs(recipe))
    listing = inputs.listing
    check_score(recipe, listing)
    check_adapters(recipe.engine.type, inputs.all_models)
    inputs.check_checkpoints()
    for source, name in listing.formats.items():
        splits = [split for split in listing.splits if split.source == source]
        counts = [split.num_rows for split in splits]
        rows = "rows not counted yet" if None in counts else f"{sum(filter(None, counts)):,} rows"
        yield f"corpus    {source}: {len({s.path for s in splits})} files, {rows}, format {name}"
    for bad in listing.bad_files:
        yield f"skipped   {bad.reason}"
    for name, models in inputs.models.items():
        for model in models:
            place = model.model_path or f"{model.identity} (known by its identity alone)"
            yield f"{name:<9} {place}{' + ' + model.adapter_path if model.adapter_path else ''}"
    for warning in inputs.warnings:
        yield f"warning   {warning}"
    if inputs.few_shot is not None:
        yield from _target(inputs.few_shot)
    if inputs.references:
        yield "tokens    base and reference give the same ids on the first rows"
    for role in recipe.makes:
        yield f"to make   {role}: by `davir reference` or `davir run`, {_how_made(recipe, role, listing)}"
    needs = ", ".join(map(pass_of, inputs.score.needs)) or "nothing"
    yield f"score     {inputs.score.name} = {inputs.score.formula}; measures {needs}"
    yield from _validate_training(recipe, inputs.base)
    for uri in (recipe.store, recipe.output):
        check_writable(uri)
        yield f"writable  {uri}"
    yield from _not_read(inputs)
    yield from _left_out(inputs)
    good = (item for item in inputs.parsed() if item[1].example is not None)
    yield from _shown(inputs, good, ROWS_SHOWN, colour)
    yield from _target_shown(inputs, colour)


def inspect(recipe: Recipe, rows: int, *, colour: bool) -> Iterator[str]:
    """Show the first rows of the corpus as tokens, what counts marked; a row without tokens with its reason."""
    inputs = load_inputs(recipe, _needs(recipe))
    yield from _not_read(inputs)
    yield from _shown(inputs, inputs.parsed(), rows, colour)


def _first_splits(inputs: Inputs) -> list[tuple[str, Split]]:
    """Return each source with its first split."""
    return sorted({split.source: split for split in reversed(inputs.listing.splits)}.items())


def _left_out(inputs: Inputs) -> Iterator[str]:
    """Count the first rows of each source that would be left out, with the first row of each status."""
    for source, split in _first_splits(inputs):
        counts, first = Counter[str](), dict[str, str]()
        try:
            for parsed in islice(
                examples(split, inputs.recipe.corpus, inputs.listing.formats[source]), ROWS_LOOKED_AT
            ):
                status, reason = _ending(inputs, parsed)
                counts[status] += 1
                first.setdefault(status, f"row {parsed.row}: {reason}")
        except UnreadableFile:
            continue  # a run stops there, or skips the file
        for status, count in sorted(counts.items()):
            if status != Status.OK:
                shown = f"{count:,} of the first {counts.total():,} rows are {status}"
                yield f"left out  {source}: {shown}, for instance {first[status]}"


def _ending(inputs: Inputs, parsed: Parsed) -> tuple[str, str]:
    """Return the status of a row before it is measured, and the reason."""
    try:
        _sequences(inputs, parsed)
    except RowError as error:
        return error.status, error.reason
    return Status.OK, ""


def _not_read(inputs: Inputs) -> Iterator[str]:
    """Name the columns and keys of the first rows of each source that nothing reads."""
    corpus = inputs.recipe.corpus
    for source, split in _first_splits(inputs):
        format = inputs.listing.formats[source]
        try:
            found = first_not_read(split, ROWS_LOOKED_AT, corpus, format, inputs.tokenizer)
        except UnreadableFile:
            continue  # a run stops there, or skips the file
        if found.columns:
            names = found.shown(FORMATS[format].columns)
            yield f"not read  {source}: {names}; the first {found.rows:,} rows were looked at"


def _how_made(recipe: Recipe, role: Role, listing: Listing) -> str:
    if role == "warmup":
        share, counts = recipe.warmup.fraction, [split.num_rows for split in listing.splits]
        rows = "" if None in counts else f", about {share * sum(filter(None, counts)):,.0f} rows"
        return f"{recipe.warmup.epochs} checkpoints, on {share} of the corpus{rows}"
    one = recipe.references["target" if role == "target" else "reference"]
    return f"fit {one.fit}" + (f", from {one.start}" if one.fit == "target" else "")


def _needs(recipe: Recipe) -> tuple[Need, ...] | None:
    """Look at no model that the recipe makes itself: it may not be there yet."""
    return () if recipe.makes else None


def _validate_training(recipe: Recipe, base: ResolvedModel) -> Iterator[str]:
    for name, train in recipe.trainings.items():
        check_base(base)
        # What a cluster without GPUs lacks is told when a run has joined it.
        check_settings(with_deepspeed(train), "cuda" if train.device == "auto" else train.device)
        for corpus_name, listing in check_corpora(recipe, train).items():
            formats = ", ".join(listing.formats.values())
            yield f"{name:<10}{corpus_name}: {len(listing.splits)} splits, format {formats}"
        yield f"{name:<10}objective {train.objective}, ZeRO {train.zero_stage}, {train.num_workers} workers"


def _shown(inputs: Inputs, rows: Iterator[tuple[Split, Parsed]], count: int, colour: bool) -> Iterator[str]:
    for split, parsed in islice(rows, count):
        title = f"--- {split.path} row {parsed.row} example {parsed.example_id.hex()}"
        try:
            made = _sequences(inputs, parsed)
        except RowError as error:
            yield title
            yield f"{error.status}: {error.reason}"
            continue
        for one in made:
            cut = ", cut" if one.truncated else ""
            yield f"{title} {one.view}: {one.scored.sum()} of {len(one.ids)} tokens count{cut}"
            yield (coloured if colour else bracketed)(inputs.tokenizer, one.ids, one.scored)


def _target(few_shot: FewShot) -> Iterator[str]:
    """Count the rows of each subtask."""
    sizes = Counter(row.subtask for row in few_shot.rows)
    yield from (
        f"target    {name}: {count:,} rows, format {few_shot.formats[name]}" for name, count in sizes.items()
    )


def _target_shown(inputs: Inputs, colour: bool) -> Iterator[str]:
    """Show the first row of each subtask of the target as tokens, with both of its sides where they are read."""
    first: dict[str, FewShotRow] = {}
    for row in inputs.few_shot.rows if inputs.few_shot is not None else ():
        first.setdefault(row.subtask, row)
    for row in first.values():
        for name, one in (("response", row.chosen), ("rejected", row.rejected)):
            if one is not None:
                yield f"--- target {row.subtask} {row.place} {name}: {one.scored.sum()} of {len(one.ids)} tokens count"
                yield (coloured if colour else bracketed)(inputs.tokenizer, one.ids, one.scored)


def _sequences(inputs: Inputs, parsed: Parsed) -> list[ViewTokens]:
    if parsed.example is None:
        raise RowError(parsed.status, parsed.reason or "")
    views = inputs.views_in(parsed.example)
    return sequences(parsed.example, inputs.tokenizer, inputs.recipe.tokens, views)

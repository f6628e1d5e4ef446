"""The table that every `davir score` ends with: a record as lines of text."""

from collections.abc import Iterator

from davir_ray import storage
from davir_ray.cli.extract import extracts
from davir_ray.coreset.summary import DroppedGroups
from davir_ray.errors import NothingChosen
from davir_ray.runs.record import RunRecord
from davir_ray.storage.layout import RunLayout

STRONG = 0.3
"""A rank correlation of score and length beyond this, either way, is worth a line."""


def record_lines(record: RunRecord) -> Iterator[str]:
    """Tell where the rows went, how the scores lie, and where the files are."""
    yield f"run       {record.run_id}  ({record.seconds} s)"
    yield f"rows      {record.rows:,}"
    for status, count in sorted(record.status.items(), key=lambda item: -item[1]):
        yield f"  {status:<20}{count:>10,}"
    yield from _measured(record)
    if (both := record.overlaps) is not None and both.same + both.near:
        yield f"target    {both.same:,} rows of the corpus are rows of the target, {both.near:,} nearly"
    if record.engine.type == "hash":
        yield "engine    hash: the numbers below are made up, for trying a recipe; they say nothing about the rows"
    yield f"selected  {record.selected:,} rows, {record.tokens:,} response tokens"
    for source, share in record.sources.items():
        yield f"  {source:<20}{share.selected:>10,} of {share.rows:,}"
    yield from _subtasks(record)
    yield from _left_out(record)
    yield f"score     {record.score}; rank correlation with response length {_correlation(record)}"
    yield from _lengths(record)
    yield from _noise(record)
    yield from _shown(record)
    yield f"scored    {record.scored}"
    if sum(record.status.values()) > record.ranked:
        yield f"unscored  {RunLayout(record.run_dir).unscored}  (file, row and reason of each row without a rank)"
    for name, folder in record.coreset.items():
        yield f"core-set  {folder}  ({name})"
    if storage.exists(page := RunLayout(record.run_dir).report):
        yield f"page      {page}"


def resumed_lines(record: RunRecord, *, trains: bool) -> Iterator[str]:
    """Tell of a run that was resumed, and of what is left to do where its recipe has a `train` section."""
    yield from record_lines(record)
    if trains and record.selected:
        yield f"train     not by this command: `davir train {record.run_dir}` trains on the core-set"


def check_chosen(record: RunRecord) -> None:
    """Raise `NothingChosen` if a run that is finished chose no row, with the reasons and their counts."""
    if record.selected:
        return
    if not record.ranked:
        why = f"none of the {record.rows:,} rows has a score ({_counts(record.status)})"
        raise NothingChosen(
            f"nothing was chosen: {why}; {RunLayout(record.run_dir).unscored} has the reason of each"
        )
    dropped = {rule: count for rule, count in record.dropped_by.items() if count}
    why = f"the rules of `select` left none of the {record.ranked:,} ranked rows"
    raise NothingChosen(f"nothing was chosen: {why} (left out by {_counts(dropped)})")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())


def _left_out(record: RunRecord) -> Iterator[str]:
    """Tell how many rows each rule left out, and quotas of which group."""
    if not record.ranked or not record.dropped_by:
        return
    yield f"left out  {record.ranked - record.selected:,} of {record.ranked:,} ranked rows"
    for rule, count in record.dropped_by.items():
        yield f"  {rule:<20}{count:>10,}"
        if rule in record.dropped_groups:
            yield from _groups(record.dropped_groups[rule])


def _groups(dropped: DroppedGroups) -> Iterator[str]:
    for group, count in dropped.groups.items():
        yield f"    {group or '(no group)':<18}{count:>10,}"
    if dropped.other_groups:
        yield f"    {f'... {dropped.other_groups:,} more':<18}{dropped.other_rows:>10,}"


def _subtasks(record: RunRecord) -> Iterator[str]:
    """Tell for how many rows each subtask of the target is the one that they score best for."""
    for name, one in record.subtasks.items():
        yield f"subtask   {name}: the best score of {one.selected:,} chosen rows, and of {one.ranked:,} ranked ones"


def _lengths(record: RunRecord) -> Iterator[str]:
    """Say what a strong correlation of score and length means, where no rule holds the lengths."""
    correlation = record.length_correlation
    holds = any(rule.endswith(":length_quota") for rule in record.dropped_by)
    if correlation is None or abs(correlation) <= STRONG or holds:
        return
    way = "longer" if correlation > 0 else "shorter"
    yield (
        f"length    {way} responses score higher (the correlation is beyond {STRONG}), so choosing by score changes "
        f"lengths: {_means(record)}; rule `length_quota` holds the corpus's"
    )


def _noise(record: RunRecord) -> Iterator[str]:
    """Say how many rows the rounding of a narrow dtype could move across the cut."""
    if (noise := record.cut_noise) is not None and noise.selected + noise.left_out:
        yield (
            f"noise     {noise.dtype} could move {noise.selected:,} of the {record.selected:,} chosen rows out, and "
            f"{noise.left_out:,} others in: they lie within two errors of the cut (docs/gpu.md)"
        )


def _means(record: RunRecord) -> str:
    ranked = f"{record.ranked_tokens / record.ranked:.1f} in all ranked rows"
    if not record.selected:
        return f"response tokens a row are {ranked}"
    return f"response tokens a row are {record.tokens / record.selected:.1f} in the core-set, {ranked}"


def _shown(record: RunRecord) -> Iterator[str]:
    """Show rows of the ranking, with the beginning of their text where it can be read."""
    shown = {"best": record.best, "borderline": record.borderline, "worst": record.worst}
    rows = [(name, row) for name, some in shown.items() for row in some]
    texts = extracts((row.file, row.row) for _, row in rows)
    for name, row in rows:
        place = f"rank {row.rank:<9,} {row.num_tokens:>6,} tokens"
        fate = row.dropped_by or "selected"
        yield f"  {name:<11}{row.score:>10.4f}  {place}  {fate:<16}  {row.file}:{row.row}"
        if (row.file, row.row) in texts:
            yield f"  {'':<11}{texts[row.file, row.row]}"


def _measured(record: RunRecord) -> Iterator[str]:
    for role, count in record.measured.items():
        text = f"measured  {role}: {count:,} sequences; {record.reused[role]:,} were in the store"
        again = record.measured_again[role]
        yield f"{text}; {again:,} begun again" if again else text


def _correlation(record: RunRecord) -> str:
    value, rows = record.length_correlation, record.length_correlation_rows
    told = "not defined" if value is None else f"{value:+z.2f}"  # z: no "-0.00"
    return told if rows == record.ranked else f"{told} (a sample of {rows:,} rows)"

"""The limits past which a night ends with exit code 8."""

from pydantic import Field

from davir_ray.config.section import Section


class NightlyConfig(Section):
    """What `davir nightly` takes for a good night. `null` switches a limit off."""

    max_failed_fraction: float | None = Field(0.05, ge=0, le=1)
    """Share of the corpus's rows that end without a score, repeats aside."""
    max_bad_files: int | None = Field(0, ge=0)
    """Files that cannot be read and are left out (`corpus.on_bad_file: skip`): their rows are in no count."""
    max_coreset_change: float | None = Field(0.5, ge=0, le=1)
    """Share of the rows in the core-set of this night or the one before that are in only one of them."""
    min_rank_correlation: float | None = Field(None, ge=-1, le=1)
    """Spearman's, of the ranks in both nights of the rows that both ranked."""

"""What a run is about: corpus, score, models, tokenizer, and what is measured of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from itertools import islice, product

from davir_ray.config import ModelsConfig
from davir_ray.corpus.example import Example
from davir_ray.corpus.listing import Listing
from davir_ray.corpus.reading import Parsed, examples
from davir_ray.corpus.split import Split
from davir_ray.errors import UnreadableFile
from davir_ray.measure.kind import KINDS, Aimed, ChecksModel, Kind, resolve_kind, strongest
from davir_ray.models.resolve import Models, ResolvedModel
from davir_ray.recipe import Recipe
from davir_ray.schema import COMPLETIONS, Need, View
from davir_ray.scores.score import Score
from davir_ray.target.rows import FewShot
from davir_ray.tokens.tokenizer import Tokenizer, tokenizer_identity
from davir_ray.tokens.views import views_in

ROWS_SAMPLED = 256
"""Rows of each source that are looked at before anything is measured; on as many base and reference are compared."""
SPLITS_SAMPLED = 8
"""Splits of each source that these rows are taken from, and so the files that are opened."""


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
        """Check that what is asked of the models can be measured under them. Raises `ModelError`."""
        for name, kind in self.passes:
            if isinstance(one := resolve_kind(kind), ChecksModel):
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
        if not isinstance(kind, Aimed) or self.few_shot is None:
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

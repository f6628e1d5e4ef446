"""A plain pandas re-implementation of the selection rules: each takes a rule and the rows that reach it.

They return the mask of the rows to keep.
"""

from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

import numpy as np


def plain_share(fraction, rows):
    return min(rows, max(1, int(Decimal(repr(fraction)) * rows)))


def plain_first(wanted, rows):
    return np.arange(len(rows)) < wanted


def plain_budget(rule, rows):
    used, keep = 0, []
    for tokens in rows["num_tokens"]:
        used = used + tokens if used + tokens <= rule.tokens and all(keep) else rule.tokens + 1
        keep.append(used <= rule.tokens)
    return np.array(keep, dtype=bool)


def plain_threshold(rule, rows):
    low = -np.inf if rule.min_score is None else rule.min_score
    high = np.inf if rule.max_score is None else rule.max_score
    return rows["score"].between(low, high).to_numpy()


def plain_best_of_each(keys, limit_of):
    place = keys.groupby(keys).cumcount()
    limits = keys.map({key: limit_of(size) for key, size in keys.value_counts().items()}).astype(float)
    return (place < limits).to_numpy(dtype=bool)


def plain_quota(rule, rows):
    def limit_of(size):
        return rule.count if rule.count is not None else plain_share(rule.fraction, size)

    return plain_best_of_each(rows[rule.by], limit_of)


def plain_length_quota(rule, rows):
    lengths = sorted(rows["num_tokens"])
    middle = {length: lengths.index(length) + Fraction(lengths.count(length), 2) for length in lengths}
    band = rows["num_tokens"].map({key: floor(rule.bands * at / len(lengths)) for key, at in middle.items()})
    return plain_best_of_each(band, lambda size: plain_share(rule.fraction, size))


def plain_difficulty(rule, rows):
    loss = rows["base_loss"].astype(float) / rows["num_tokens"]
    ordered = sorted(loss.dropna())
    if not ordered:
        return np.zeros(len(rows), dtype=bool)
    low = ordered[floor(Fraction(repr(rule.min_quantile)) * len(ordered))]
    high = ordered[ceil(Fraction(repr(rule.max_quantile)) * len(ordered)) - 1]
    return loss.between(low, high).to_numpy()


PLAIN = {
    "fraction": lambda rule, rows: plain_first(plain_share(rule.fraction, len(rows)), rows),
    "count": lambda rule, rows: plain_first(rule.count, rows),
    "token_budget": plain_budget,
    "threshold": plain_threshold,
    "quota": plain_quota,
    "length_quota": plain_length_quota,
    "difficulty": plain_difficulty,
    "near_duplicates": lambda rule, rows: ~rows["signature"].duplicated().to_numpy(),
}


def plain_choose(rules, frame):
    kept_sources = {name for rule in rules if rule.type == "keep_sources" for name in rule.sources}
    reaching = ~frame["source"].isin(kept_sources).to_numpy(dtype=bool)
    dropped_by = np.full(len(frame), -1)
    for index, rule in enumerate(rules):
        if rule.type != "keep_sources":
            rows = np.flatnonzero(reaching)
            out = rows[~PLAIN[rule.type](rule, frame.iloc[rows])]
            reaching[out], dropped_by[out] = False, index
    return dropped_by

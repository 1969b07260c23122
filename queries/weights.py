"""How the outputs of one question share its privacy budget: evenly, or by weights.

Without weights every sum that is released carries the same noise. An output of weight 2 beside one of weight 1 has half
of that noise in what it is computed from: its sums are multiplied by 2 before the noise, and the sensitivity that pays
for it counts them so. What several outputs are computed from has the largest of their weights. Weights are relative,
whole numbers once they are brought to their lowest terms, and part of the signed query. Must not know: slots, SQL text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from queries import ir
from queries.errors import QueryError, UnknownName

MAX_WEIGHT = 1_000
"""Largest weight in lowest terms. It takes as much room in the 64-bit sums as a thousand times the rows."""
_HINT = "weights are relative: name=2 beside outputs of weight 1, at most 1,000 times another"


def weighted(query: ir.Query, weights: Mapping[str, float]) -> ir.Query:
    """Return the query with weights by output name; outputs that are not named have weight 1.

    Raise UnknownName for a name that is no output, QueryError for what is no weight.
    """
    names = [named.name for named in query.aggregates]
    for name in weights:
        if name not in names:
            raise UnknownName("output", name, names)
    exact = [_exact(name, weights.get(name, 1)) for name in names]
    common = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * common) for weight in exact]
    shared = math.gcd(*whole)
    if max(whole) // shared > MAX_WEIGHT:
        raise QueryError(f"weights are ratios of whole numbers up to {MAX_WEIGHT:,}", hint=_HINT)
    aggregates = tuple(
        replace(named, weight=weight // shared) for named, weight in zip(query.aggregates, whole, strict=True)
    )
    return replace(query, aggregates=aggregates)


def normal_weights(aggregates: tuple[ir.NamedAggregate, ...]) -> tuple[ir.NamedAggregate, ...]:
    """Return outputs with their weights in lowest terms. Raise QueryError where one is none."""
    for named in aggregates:
        if isinstance(named.weight, bool) or not isinstance(named.weight, int) or named.weight < 1:
            raise QueryError(f"the weight of {named.name!r} must be a whole number of at least 1", hint=_HINT)
    shared = math.gcd(*(named.weight for named in aggregates))
    if max(named.weight for named in aggregates) // shared > MAX_WEIGHT:
        raise QueryError(f"weights are ratios of whole numbers up to {MAX_WEIGHT:,}", hint=_HINT)
    return tuple(replace(named, weight=named.weight // shared) for named in aggregates)


def read_weights(text: str) -> dict[str, float]:
    """Return the weights in a text such as "avg_age=2,n=1". Raise QueryError where it is none."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not equals or not name or math.isnan(weight):
            raise QueryError("weights are written as name=number, with commas between", hint="as in avg_age=2,n=1")
        if name in weights:
            raise QueryError(f"two weights are given for {name!r}", hint="give each output one")
        weights[name] = weight
    return weights


def _exact(name: str, weight: object) -> Fraction:
    """Return a weight as the ratio that was meant: 0.1 is a tenth, not the float next to it."""
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight <= 0:
        raise QueryError(f"the weight of {name!r} must be a number above 0", hint=_HINT)
    exact = Fraction(weight).limit_denominator(MAX_WEIGHT)
    if not exact or abs(float(exact) / weight - 1) > 1e-9:
        raise QueryError(
            f"the weight of {name!r} is no ratio of whole numbers up to {MAX_WEIGHT:,}", hint="as in 2, 0.5 or 1.25"
        )
    return exact

"""From the noisy sums of a model, test or curve to its numbers, in the columns' own units.

Takes sums in units of one row, undoes the map of values to [-1, 1], and leaves the statistics to `inference`. Must not
know: data, how noise was drawn, how an answer is laid out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from queries import ir_models as ir
from queries import models
from queries.inference import hypotheses, linear, pairs, spectral, survival
from queries.inference.forms import Z95, Floats, Ratio
from queries.schema import Dataset
from queries.slots import ONE, Slot, Term, slot_of, times


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One number of an output in every cell; arrays are (cells,). `lower` and `upper` bound a bin of time.

    `noise_share` is how much of the error's variance is noise: all of it where an interval is about the pooled rows.
    """

    label: str
    value: Floats
    standard_error: Floats
    low: Floats
    high: Floats
    lower: float | None = None
    upper: float | None = None
    noise_share: Floats | float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What was released: `moments` (cells, slots) in units of one row, `noise` (slots,) the variance in each."""

    dataset: Dataset
    places: Mapping[Slot, int]
    moments: Floats
    noise: Floats

    def pick(self, slots: Sequence[Slot]) -> tuple[Floats, Floats]:
        """Return the moments of some slots, and their noise."""
        places = [self.places[slot] for slot in slots]
        return self.moments[:, places], self.noise[places]

    def units(self, column: str) -> tuple[float, float]:
        """Return (mid, half) of a column's bounds."""
        kind = self.dataset.numeric(column)
        return kind.lower / 2 + kind.upper / 2, kind.upper / 2 - kind.lower / 2


_LABELS: dict[type[ir.Model], str] = {
    ir.LinearModel: "term",
    ir.MeanTest: "number",
    ir.GroupTest: "number",
    ir.IndependenceTest: "number",
    ir.LogRank: "number",
}


def label_of(node: ir.Model) -> str:
    """Return the name of the column that tells an output's parts apart; "" where it is one number."""
    if isinstance(node, ir.Matrix):
        return "component" if node.kind == "components" else "pair"
    return node.time if isinstance(node, ir.Survival) else _LABELS.get(type(node), "")


def answer(node: ir.Model, sums: Sums, histogram: int = 0) -> tuple[Part, ...]:  # noqa: PLR0911 -- one a node
    """Return the numbers of one output; `histogram` as in `models.layout`."""
    match node:
        case ir.Covariance() | ir.Correlation() | ir.Line():
            return (_pair(node, sums),)
        case ir.Matrix():
            return _matrix(node, sums)
        case ir.LinearModel():
            return _linear_model(node, sums)
        case ir.MeanTest():
            return _mean_test(node, sums)
        case ir.GroupTest():
            return _group_test(node, sums)
    table, noise = sums.pick(models.layout(node, sums.dataset, histogram).slots)
    table = table.reshape(-1, *(axis.bins for axis in models.joint_of(node, sums.dataset).axes))
    each = float(noise[0])
    if isinstance(node, ir.IndependenceTest):
        return _test(hypotheses.independence(table, each))
    if isinstance(node, ir.LogRank):
        return _test(survival.log_rank(table[:, :, 0], table[:, :, 1], each))
    curve = survival.kaplan_meier(table[:, 0], table[:, 1], each, sampling=node.population)
    return _curve(node.edges, curve)


def _curve(edges: tuple[float, ...], curve: survival.Curve) -> tuple[Part, ...]:
    arrays = zip(curve.value.T, curve.standard_error.T, curve.low.T, curve.high.T, strict=True)
    shares = curve.noise_share.T
    labels = [f"[{lower:.12g}, {upper:.12g})" for lower, upper in pairwise(edges)]
    labels[-1] = labels[-1][:-1] + "]"
    return tuple(
        Part(label, *each, lower, upper, share)
        for label, each, (lower, upper), share in zip(labels, arrays, pairwise(edges), shares, strict=True)
    )


def _part(label: str, found: Ratio, unit: float = 1.0, offset: float = 0.0) -> Part:
    """Return `offset + unit * found`; `unit` is above 0."""
    low, high = unit * found.low, unit * found.high
    return Part(label, offset + unit * found.value, (high - low) / (2 * Z95), offset + low, offset + high)


def _within(found: Ratio, least: float, most: float) -> Ratio:
    """Cut intervals off at what is possible, which keeps every possible value that they covered."""
    value, low, high = (np.clip(side, least, most) for side in (found.value, found.low, found.high))
    return replace(found, value=value, low=low, high=high)


def _pair(node: ir.Covariance | ir.Correlation | ir.Line, sums: Sums, label: str = "") -> Part:
    kind = models.pair_kind(node)
    moments, noise = sums.pick(models.pair_slots(node, sums.dataset))
    if kind == "count":
        error = np.full(moments.shape[0], sqrt(noise[0]))
        return Part(label, moments[:, 0], error, moments[:, 0] - Z95 * error, moments[:, 0] + Z95 * error)
    names = models.PAIR_MOMENTS[kind]
    at = {name: names.index(name) if name in names else -1 for name in models.PAIR_MOMENTS["r2"]}
    pair = pairs.Pair(len(names), **at)
    (mid_x, half_x), (mid_y, half_y) = sums.units(node.x), sums.units(node.y)
    if isinstance(node, ir.Covariance):
        most = 1.0 + node.ddof  # n / (n - ddof) for as few rows as there can be
        return _part(
            label, _within(pairs.covariance(pair, moments, noise, ddof=node.ddof), -most, most), half_x * half_y
        )
    if kind == "slope":
        return _part(label, pairs.slope(pair, moments, noise), half_y / half_x)
    if kind == "intercept":
        return _part(label, pairs.intercept(pair, moments, noise, at=-mid_x / half_x), half_y, mid_y)
    found = _within(pairs.correlation(pair, moments, noise), -1.0, 1.0)
    return _part(label, found if kind == "correlation" else _squared(found))


def _squared(found: Ratio) -> Ratio:
    low, high = found.low, found.high
    ends = np.sort(np.stack([low * low, high * high]), axis=0)
    return replace(found, value=found.value**2, low=np.where((low < 0) & (high > 0), 0.0, ends[0]), high=ends[1])


def _matrix(node: ir.Matrix, sums: Sums) -> tuple[Part, ...]:
    columns, dataset = node.columns, sums.dataset
    terms = [Term((name,)) for name in columns]
    seconds = [[slot_of(times(a, b) or ONE, columns, dataset) for b in terms] for a in terms]
    slots = models.layout(node, dataset).slots  # the count first
    moments, noise = sums.pick(slots)
    places = {slot: place for place, slot in enumerate(slots)}
    lone = np.array([places[slot_of(term, columns, dataset)] for term in terms], dtype=np.intp)
    second = np.array([[places[slot] for slot in row] for row in seconds], dtype=np.intp)
    scale = np.array([sums.units(name)[1] for name in columns])
    matrix, gradient = spectral.covariance_matrix(lone, second, moments, noise, scale, ddof=1)
    if node.kind == "components":
        return _components(columns, spectral.principal_components(matrix, gradient, noise))
    smallest = np.linalg.eigvalsh(matrix)[:, 0]
    positive = np.where((smallest < 0)[:, None, None], spectral.nearest_psd(matrix), matrix)
    spread = np.sqrt(np.maximum(np.einsum("gii->gi", positive), 0.0))
    parts = []
    for i, x in enumerate(columns):
        for j, y in enumerate(columns[i:], start=i):
            label = f"{x} {y}"
            if node.kind == "covariance":
                part = _pair_of(ir.Covariance(x, y), sums, columns, label)
                value = positive[:, i, j]
            elif i == j:
                continue
            else:
                part = _pair_of(ir.Correlation(x, y), sums, columns, label)
                both = spread[:, i] * spread[:, j]
                value = np.where(both > 0, positive[:, i, j] / np.where(both > 0, both, 1.0), part.value)
            parts.append(replace(part, value=np.clip(value, part.low, part.high)))
    return tuple(parts)


def _pair_of(node: ir.Covariance | ir.Correlation, sums: Sums, among: tuple[str, ...], label: str) -> Part:
    """Return a pair's number from the sums of a matrix, whose rows are complete in all of its columns."""
    own = models.pair_slots(node, sums.dataset)
    x, y = Term((node.x,)), Term((node.y,))
    terms = {"count": ONE, "x": x, "y": y, "xx": times(x, x), "yy": times(y, y), "xy": times(x, y)}
    names = models.PAIR_MOMENTS[models.pair_kind(node)]
    shared = [slot_of(terms[name] or ONE, among, sums.dataset) for name in names]
    places = {slot: sums.places[other] for slot, other in zip(own, shared, strict=True)}
    return _pair(node, replace(sums, places=places), label)


def _components(columns: tuple[str, ...], found: spectral.Components) -> tuple[Part, ...]:
    parts = []
    for place in range(len(columns)):
        value, error = found.variances[:, place], found.error[:, place]
        parts.append(Part(f"{place + 1} variance", value, error, found.low[:, place], found.high[:, place]))
        for column, name in enumerate(columns):
            low, high = found.loadings_low[:, place, column], found.loadings_high[:, place, column]
            parts.append(
                Part(f"{place + 1} {name}", found.loadings[:, place, column], (high - low) / (2 * Z95), low, high)
            )
    return tuple(parts)


def _linear_model(node: ir.LinearModel, sums: Sums) -> tuple[Part, ...]:
    dataset, terms = sums.dataset, models.model_terms(node, sums.dataset)
    slots = models.layout(node, dataset).slots
    moments, noise = sums.pick(slots)
    places = {slot: place for place, slot in enumerate(slots)}

    def place(left: Term, right: Term) -> int:
        both = times(left, right)
        return -1 if both is None else places[slot_of(both, node.columns, dataset)]

    response = Term((node.response,))
    design = linear.Design(
        normal=np.array([[place(a, b) for b in terms] for a in terms], dtype=np.intp),
        response=np.array([place(term, response) for term in terms], dtype=np.intp),
        square=place(response, response),
    )
    mid, half = sums.units(node.response)
    fit = linear.fit(design, moments, noise, _rotation(terms, sums, half), sampling=node.population)
    parts = []
    for number, term in enumerate(terms):
        offset = mid if term == ONE else 0.0
        value, low, high = (offset + side[:, number] for side in (fit.coefficients, fit.low, fit.high))
        share = fit.noise_share[:, number]
        parts.append(Part(_term_name(term), value, fit.standard_error[:, number], low, high, noise_share=share))
    rows_error = np.full_like(fit.rows, sqrt(noise[design.normal[0, 0]]))
    parts.append(_normal("rows", fit.rows, rows_error))
    parts.append(_normal("residual_df", fit.freedom, rows_error))
    parts.append(_normal("deviance", half * half * fit.deviance, half * half * fit.deviance_error, least=0.0))
    parts.append(_normal("r_squared", fit.r_squared, fit.r_squared_error, least=0.0, most=1.0))
    return tuple(parts)


def _rotation(terms: Sequence[Term], sums: Sums, half: float) -> Floats:
    """Return the matrix from coefficients of u to those of the columns themselves."""
    rotation: NDArray[np.float64] = np.zeros((len(terms), len(terms)))
    rotation[0, 0] = half
    for number, term in enumerate(terms[1:], start=1):
        if term.levels:
            rotation[number, number] = half
            continue
        mid_x, half_x = sums.units(term.factors[0])
        rotation[number, number] = half / half_x
        rotation[0, number] = -half * mid_x / half_x
    return rotation


def _term_name(term: Term) -> str:
    if term == ONE:
        return "intercept"
    return f"{term.levels[0][0]}={term.levels[0][1]}" if term.levels else term.factors[0]


def _normal(label: str, value: Floats, error: Floats, least: float = -np.inf, most: float = np.inf) -> Part:
    low, high = np.clip(value - Z95 * error, least, most), np.clip(value + Z95 * error, least, most)
    return Part(label, np.clip(value, least, most), error, low, high)


def _mean_test(node: ir.MeanTest, sums: Sums) -> tuple[Part, ...]:
    moments, noise = sums.pick(models.mean_slots(node, sums.dataset))
    mid, half = sums.units(node.column)
    if node.other is None:
        # x - mean = half u + shift
        shift = mid - node.mean
        total = np.array([shift, half, 0.0])
        square = np.array([shift * shift, 2 * shift * half, half * half])
    else:
        other_mid, other_half = sums.units(node.other)
        shift = mid - other_mid - node.mean
        total = np.array([shift, half, -other_half, 0.0, 0.0, 0.0])
        square = np.array(
            [
                shift * shift,
                2 * shift * half,
                -2 * shift * other_half,
                half * half,
                -2 * half * other_half,
                other_half * other_half,
            ]
        )
    variances = np.array([noise[0], total**2 @ noise, square**2 @ noise])
    outcome = hypotheses.mean_of_one(moments[:, 0], moments @ total, moments @ square, variances)
    return _test(outcome, "mean" if node.other is None else "difference", node.mean)


def _group_test(node: ir.GroupTest, sums: Sums) -> tuple[Part, ...]:
    moments, noise = sums.pick(models.group_slots(node, sums.dataset))
    counts, totals, squares = (moments[:, place::3] for place in range(3))
    each = float(noise[0]), float(noise[1]), float(noise[2])
    if node.kind == "anova":
        return _test(hypotheses.means_of_many(counts, totals, squares, each))
    outcome = hypotheses.means_of_two(counts, totals, squares, each, equal_variances=node.kind == "student")
    half = sums.units(node.column)[1]
    if outcome.effect is not None and outcome.effect_half is not None:
        outcome = replace(outcome, effect=half * outcome.effect, effect_half=half * outcome.effect_half)
    return _test(outcome, "difference")


def _test(outcome: hypotheses.Outcome, effect: str = "", offset: float = 0.0) -> tuple[Part, ...]:
    """Return a test's numbers: exact functions of what was released, so without intervals but for the effect's."""
    none = np.zeros_like(outcome.statistic)
    named = {"statistic": outcome.statistic, "df": outcome.freedom, "p_value": outcome.p_value}
    parts = [Part(label, value, none, value, value, noise_share=np.nan) for label, value in named.items()]
    if outcome.effect is not None and outcome.effect_half is not None and outcome.noise_share is not None:
        value, half = outcome.effect + offset, outcome.effect_half
        parts.append(Part(effect, value, half / Z95, value - half, value + half, noise_share=outcome.noise_share))
    return tuple(parts)

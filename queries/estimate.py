"""From noisy integer sums to estimates with 95% intervals.

Intervals are about the noise alone: they cover the value that the pooled data have, not that of a wider population.
Everything is a closed formula over all cells at once; the formulas and what they were measured to cover are in
docs/privacy.md. Must not know: data, how noise was drawn, pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from math import erfc, log, prod, sqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from queries import ir
from queries.errors import QueryError
from queries.inference import quantiles, shapes
from queries.inference.forms import solve
from queries.model_answers import Sums, answer, label_of
from queries.noise import NoiseShape
from queries.plan import Plan, centre, histogram_of, slots_of
from queries.quantiles import tree_of
from queries.schema import Dataset
from queries.slots import Joint, Slot, keys_of
from queries.withheld import few, in_rows

Z95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""
LAPLACE_95 = log(20) / sqrt(2)
"""Standard deviations within which a Laplace variable is with probability 95%; a sum of several is oftener."""
_SURE = 6.0  # standard deviations that noise never exceeds, for bounds that must not cut an interval short
Floats: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[Floats, Floats, Floats]  # value, low, high


ARRAYS = ("value", "standard_error", "low", "high", "noise_share")
"""What is known of every number: the fields of an `Estimate`, and the arrays of an `Output`."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """One number of an answer; `low` and `high` are its 95% interval.

    Counts and sums are unbiased and not clamped: a count may be negative. Means, variances and standard deviations stay
    within what the column's public bounds allow; where the noise leaves no information their interval is all of it.
    `standard_error` is the noise's standard deviation (counts, sums), else half the interval's width over 1.96.
    `noise_share` is how much of its square is noise: all of it, 1, but for models, effects and curves whose interval
    counts in the sampling of patients; NaN for a statistic or p-value, which has no error.
    """

    value: float
    standard_error: float
    low: float
    high: float
    noise_share: float = 1.0


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a histogram; `lower` and `upper` are None where it is a category."""

    label: str
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, slots=True)
class BinEstimate:
    """One bin of a histogram that stands beside other outputs."""

    bin: Bin
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an answer: its public keys and one value per output, a tuple of bins for a histogram."""

    keys: tuple[str, ...]
    values: tuple[Estimate | tuple[BinEstimate, ...], ...]


@dataclass(frozen=True, eq=False)
class Output:
    """One output of all rows, as arrays of shape (rows,), or (rows, bins) for a histogram beside other outputs."""

    name: str
    value: Floats
    standard_error: Floats
    low: Floats
    high: Floats
    bins: tuple[Bin, ...] = ()
    noise_share: Floats = field(default_factory=lambda: np.ones(()))

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_share", np.broadcast_to(self.noise_share, self.value.shape))

    def mapped(self, change: Callable[[Floats], Floats]) -> Output:
        """Return the output with all its arrays passed through a function that selects or lays out anew."""
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in ARRAYS}
        return replace(self, **changed)

    def at(self, row: int) -> Estimate | tuple[BinEstimate, ...]:
        """Return this output of one row."""
        parts = tuple(getattr(self, name)[row] for name in ARRAYS)
        if self.value.ndim == 1:
            return Estimate(*map(float, parts))
        lists = (part.tolist() for part in parts)
        return tuple(BinEstimate(each, Estimate(*five)) for each, *five in zip(self.bins, *lists, strict=True))


@dataclass(frozen=True, eq=False)
class Table:
    """An answer. `keys` names the key columns; `row_keys` holds their values row by row, `outputs` the estimates.

    A histogram that is the only output is laid out long: a row for each group and bin, the bin's label under a last key
    column that bears the name of the histogram's column (with "_bin" where the query groups by that column too).
    """

    keys: tuple[str, ...]
    row_keys: tuple[tuple[str, ...], ...]
    outputs: tuple[Output, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the outputs, in the query's order."""
        return tuple(output.name for output in self.outputs)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The answer row by row; made on first use."""
        return tuple(
            Row(keys, tuple(output.at(row) for output in self.outputs)) for row, keys in enumerate(self.row_keys)
        )


@dataclass(frozen=True, slots=True)
class ExpectedWidth:
    """Half the width of one output's interval, as far as it can be told before anything is asked.

    Counts, sums and histograms: exact. Otherwise for a group of `assumed_rows` rows in which columns are independent,
    the mean of each is the middle of its bounds and its standard deviation a quarter of their range, and categories are
    equally frequent; for a quantile, values are spread evenly.
    The numbers of a model each have their own, called after output and number.
    """

    name: str
    half_width: float
    assumed_rows: int | None = None


def estimate(plan: Plan, sums: Sequence[int] | NDArray[np.int64], shape: NoiseShape, survivors: int) -> Table:
    """Return the estimates that a released sum holds. `sums` are signed, on the refined lattice, in plan order.

    Groups and bins that the dataset's `smallest_count` hides are NaN throughout.
    Raise QueryError where the sums are not those of this plan.
    """
    lattice = np.asarray(sums, dtype=np.int64)
    if lattice.shape != (plan.length,):
        raise QueryError(f"this query has {plan.length:,} sums, not {lattice.size:,}")
    cells, noise = in_rows(plan, lattice, shape), _noise(plan, shape, survivors)
    outputs = tuple(_output(named, plan, cells, noise, pure=shape.pure) for named in plan.query.aggregates)
    if plan.dataset.smallest_count:
        pairs = zip(outputs, plan.query.aggregates, strict=True)
        outputs = tuple(_shown(output, named.aggregate, plan, cells) for output, named in pairs)
    keys = tuple(key.column for key in plan.query.keys)
    only = plan.query.aggregates[0].aggregate
    label = only.column if isinstance(only, ir.Histogram) else label_of(only) if isinstance(only, ir.Model) else ""
    if len(outputs) == 1 and label:
        return _long(keys, plan.cells, outputs[0], label)
    return Table(keys, plan.cells, outputs)


def expected_widths(
    plan: Plan, shape: NoiseShape, survivors: int, *, assumed_rows: int = 1000
) -> tuple[ExpectedWidth, ...]:
    """Return what each output's interval will be like, in the query's order, before anything is spent."""
    cell = np.array([[assumed_rows * _expected(slot, plan) for slot in plan.slots]], dtype=np.float64)
    noise = _noise(plan, shape, survivors)
    widths = []
    for named in plan.query.aggregates:
        output = _output(named, plan, cell, noise, pure=shape.pure)
        halves = (output.high - output.low).reshape(-1) / 2
        exact = isinstance(named.aggregate, ir.Count | ir.Persons | ir.Sum | ir.Histogram)
        if not isinstance(named.aggregate, ir.Model) or not output.bins:
            widths.append(ExpectedWidth(named.name, float(halves[0]), None if exact else assumed_rows))
            continue
        parts = zip(output.bins, halves.tolist(), strict=True)
        # a statistic and its p-value have no interval
        widths += [ExpectedWidth(f"{named.name} {part.label}", half, assumed_rows) for part, half in parts if half > 0]
    return tuple(widths)


def _shown(output: Output, aggregate: ir.Aggregate, plan: Plan, cells: Floats) -> Output:
    """Return an output without what `withheld` says is not to be shown."""
    hidden = few(plan, cells).reshape(-1, *[1] * (output.value.ndim - 1))
    if isinstance(aggregate, ir.Histogram):
        hidden = hidden | (output.value < plan.dataset.smallest_count)
    return output.mapped(lambda array: np.where(hidden, np.nan, array))


def _noise(plan: Plan, shape: NoiseShape, survivors: int) -> Floats:
    """Return the variance of the noise in each slot, in units of one row, (slots,)."""
    variance = float(shape.total_variance(survivors) / 4 ** (plan.scale_bits + shape.refine_bits))
    return variance / np.array(plan.gains, dtype=np.float64) ** 2


def _expected(slot: Slot, plan: Plan) -> float:
    """Return what an average row adds to a slot, as `ExpectedWidth` assumes: u has deviation 1/2."""
    if slot.kind == "bin":
        histogram = plan.histograms[slot.histogram]
        if isinstance(histogram, Joint):
            return 1 / histogram.bins
        return 1 / (len(histogram.edges) - 1 if histogram.edges else len(keys_of(histogram.column, plan.dataset)))
    share = prod(1 / len(plan.dataset.categorical(column).keys) for column, _key in slot.levels)
    factors = {"linear": (slot.column,), "square": (slot.column,) * 2}.get(slot.kind, slot.factors)
    powers = [factors.count(name) for name in set(factors)]
    return 0.0 if any(power % 2 for power in powers) else share * prod({2: 1 / 4, 4: 3 / 16}[p] for p in powers)


def bins_of(histogram: ir.Histogram, dataset: Dataset) -> tuple[Bin, ...]:
    """Return a histogram's bins in order: of its edges, or of the published keys."""
    if not histogram.edges:
        return tuple(Bin(key) for key in dataset.categorical(histogram.column).keys)
    edges = [(lower, upper, ")") for lower, upper in zip(histogram.edges, histogram.edges[1:], strict=False)]
    edges[-1] = (*edges[-1][:2], "]")
    return tuple(Bin(f"[{lower:.12g}, {upper:.12g}{end}", lower, upper) for lower, upper, end in edges)


def _long(keys: tuple[str, ...], cells: tuple[tuple[str, ...], ...], output: Output, column: str) -> Table:
    """Lay out a lone histogram with one row for each group and bin."""
    rows = tuple((*cell, each.label) for cell in cells for each in output.bins)
    flat = output.mapped(lambda array: array.reshape(-1))
    return Table((*keys, f"{column}_bin" if column in keys else column), rows, (flat,))


def _output(  # noqa: PLR0911 -- one return a kind
    named: ir.NamedAggregate, plan: Plan, cells: Floats, noise: Floats, *, pure: bool
) -> Output:
    """Return one output of all cells; `cells` has a column a slot, `noise` is each slot's variance in the same unit.

    `pure` noise is of the Laplace kind, whose intervals are those of Gaussian noise that is as much wider.
    """
    aggregate, name, dataset = named.aggregate, named.name, plan.dataset
    if isinstance(aggregate, ir.Model):
        return _model(named.name, aggregate, plan, cells, noise)
    columns = [plan.positions[slot] for slot in slots_of(aggregate, dataset, plan.histograms)]
    sums, noise = cells[:, columns], noise[columns]
    wider = LAPLACE_95 / Z95 if pure else 1.0
    if isinstance(aggregate, ir.Histogram):
        return _normal(name, sums, noise, wider, bins_of(aggregate, dataset))
    if isinstance(aggregate, ir.Count | ir.Persons):
        return _normal(name, sums[:, 0], noise[0], wider)
    if isinstance(aggregate, ir.Quantile):
        return _ratio(name, *_quantile(aggregate, dataset, sums, noise, pure=pure))
    if isinstance(aggregate, ir.Skewness | ir.Kurtosis):
        moment = shapes.skewness if isinstance(aggregate, ir.Skewness) else shapes.kurtosis
        return _ratio(name, *moment(sums, wider**2 * noise))
    mid, half = centre(dataset.numeric(aggregate.column))
    if isinstance(aggregate, ir.Sum):
        parts = np.array([half]) if len(columns) == 1 else np.array([mid, half])  # mid is 0 where nothing was counted
        return _normal(name, sums @ parts, parts**2 @ noise, wider)
    if isinstance(aggregate, ir.Mean):
        value, low, high = _mean(sums, wider**2 * noise)
        return _ratio(name, mid + half * value, mid + half * low, mid + half * high)
    value, low, high = _variance(sums, noise, wider**2 * noise, ddof=aggregate.ddof)
    if isinstance(aggregate, ir.Stddev):
        value, low, high, unit = np.sqrt(value), np.sqrt(low), np.sqrt(high), half
    else:
        unit = half * half
    return _ratio(name, unit * value, unit * low, unit * high)


def _model(name: str, node: ir.Model, plan: Plan, cells: Floats, noise: Floats) -> Output:
    """Return a model's, a test's or a curve's numbers, as bins where they are several."""
    sums = Sums(plan.dataset, plan.positions, cells, noise)
    parts = answer(node, sums, histogram_of(node, plan.dataset, plan.histograms))
    value, error, low, high = (
        np.stack([getattr(part, what) for part in parts], axis=1) for what in ("value", "standard_error", "low", "high")
    )
    if not label_of(node):
        return Output(name, value[:, 0], error[:, 0], low[:, 0], high[:, 0])
    bins = tuple(Bin(part.label, part.lower, part.upper) for part in parts)
    shares = np.stack([np.broadcast_to(part.noise_share, part.value.shape) for part in parts], axis=1)
    return Output(name, value, error, low, high, bins, shares)


def _quantile(node: ir.Quantile, dataset: Dataset, counts: Floats, noise: Floats, *, pure: bool) -> Interval:
    tree = tree_of(dataset.numeric(node.column))
    ends = np.cumsum([len(edges) - 1 for edges in tree.levels])
    levels = np.split(counts, ends[:-1], axis=1)
    return quantiles.quantile(quantiles.cumulative(tree, levels, noise[ends - 1].tolist(), pure=pure), node.q)


def _normal(name: str, value: Floats, variance: Floats | float, wider: float, bins: tuple[Bin, ...] = ()) -> Output:
    """Return an output that is a linear combination of sums."""
    error = np.full_like(value, np.sqrt(variance))
    reach = wider * Z95 * error
    return Output(name, value, error, value - reach, value + reach, bins)


def _ratio(name: str, value: Floats, low: Floats, high: Floats) -> Output:
    """Return an output that is a ratio of sums."""
    return Output(name, value, (high - low) / (2 * Z95), low, high)


def _mean(sums: Floats, noise: Floats) -> Interval:
    """Return the mean of u from its count and sum, (cells, 2), by Fieller's theorem, within [-1, 1].

    The interval holds every m for which linear - m count is within 1.96 of its own standard deviations of 0.
    """
    count, linear = sums.T
    of_count, of_linear = Z95**2 * noise
    known = (count > 0) & (count * count > of_count)
    lead = np.where(known, count * count - of_count, 1.0)
    root = np.sqrt(np.maximum(of_linear * lead + of_count * linear * linear, 0.0))
    value = np.where(count > 0, linear / np.where(count > 0, count, 1.0), 0.0)
    interval = value, (linear * count - root) / lead, (linear * count + root) / lead
    return _within(interval, known, (-1.0, 1.0))


def _variance(sums: Floats, noise: Floats, wide: Floats, *, ddof: int) -> Interval:
    """Return the variance of u from its count, sum and sum of squares, (cells, 3), by `forms.solve`.

    With exact sums n, s, q it is t = (q n - s s) / (n n - ddof n). `above - t below` has mean 0 at the true t, and an
    unbiased estimate of its variance is flat - 2 t tilt + t t steep, for Gaussian noise. `wide` is the variance that
    intervals are made for.
    """
    count, linear, square = sums.T
    of_count, of_linear, of_square = noise
    wide_count, wide_linear, wide_square = wide
    above = square * count - linear * linear + of_linear
    below = count * count - of_count - ddof * count
    slope = 2 * count - ddof
    steep = wide_count * (slope * slope - 2 * of_count)
    flat = wide_square * count * count + wide_count * square * square + 4 * wide_linear * linear * linear
    flat -= wide_count * of_square + 2 * wide_linear * of_linear
    found = solve(above, below, flat, wide_count * square * slope, steep)
    known = found.known & (count > 0)
    fewest = np.maximum(count - _SURE * np.sqrt(wide_count), ddof + 1.0)
    most = fewest / (fewest - ddof)  # the variance of u when half of so few rows are at each bound
    value = np.where(below > 0, above / np.where(below > 0, below, 1.0), most / 2)
    low, high = (np.where(known, side, 0.0) for side in (found.low, found.high))
    return _within((value, low, high), known, (0.0, most))


def _within(interval: Interval, known: NDArray[np.bool_], bounds: tuple[float, Floats | float]) -> Interval:
    """Confine an interval to public bounds; where it is not known it is the bounds themselves.

    Cutting it off would leave nothing where the noise was unlucky, and cover more than 95% beside a bound. Instead the
    unified interval of Feldman and Cousins (1998, section IV.B) is taken, for a normal estimate whose mean cannot lie
    beyond a bound: it is never empty, and where no bound is near it is the interval as it was.
    """
    value, low, high = interval
    least, most = bounds
    middle, sigma = (low + high) / 2, (high - low) / (2 * Z95)
    unit = np.where(sigma > 0, sigma, 1.0)
    over, under = (middle - least) / unit, (most - middle) / unit  # in standard deviations
    low = np.where(under < 0, most - sigma * _upper_limit(under), least + sigma * _lower_limit(over))
    high = np.where(over < 0, least + sigma * _upper_limit(over), most - sigma * _lower_limit(under))
    exact = sigma == 0
    low = np.where(known, np.clip(np.where(exact, middle, low), least, most), least)
    high = np.where(known, np.clip(np.where(exact, middle, high), least, most), most)
    return np.clip(value, low, high), low, high


def _lower_limit(x: Floats) -> Floats:
    """Return the lower limit of a mean of at least 0, given an observation with standard deviation 1."""
    means, reach = _acceptance()
    return np.where(x < 2 * Z95, np.interp(x, means + reach, means, left=0.0), x - Z95)


def _upper_limit(x: Floats) -> Floats:
    """Return the upper limit of a mean of at least 0, given an observation with standard deviation 1."""
    means, reach = _acceptance()
    return np.where(x < 0, np.interp(x, (means - reach * reach / means) / 2, means), x + Z95)


@cache
def _acceptance() -> tuple[Floats, Floats]:
    """Return means m between 0 and 1.96 and, for each, how far above m an observation still belongs to it.

    Observations in [(m - d d / m) / 2, m + d], where likelihood ratios are equal at both ends, have probability 0.95.
    """
    means = np.geomspace(0.005, Z95, 200)
    reach = []
    for mean in means.tolist():
        low, high = 0.0, 2 * Z95
        for _ in range(40):
            d = (low + high) / 2
            inside = 1 - (erfc(d / sqrt(2)) + erfc((mean + d * d / mean) / 2 / sqrt(2))) / 2
            low, high = (d, high) if inside < 0.95 else (low, d)
        reach.append(high)
    return means, np.array(reach)

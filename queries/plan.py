"""From a query and the public schema to the integer vector that is released, and to exactly what it discloses.

Everything here is a function of public values, so that analyst, coordinator and agent compute it alone and agree: the
cells, what a row adds to each coordinate, the exact squared L2 sensitivity, and the noise each institution must add.
The argument is docs/privacy.md. Must not know: data, any engine, how noise is drawn, how shares travel.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise, product
from math import isqrt, log, pi

from queries import expressions, ir, models
from queries.accounting import NANO, pure_epsilon_nano
from queries.errors import QueryError
from queries.limits import MAX_AGGREGATES
from queries.quantiles import tree_of
from queries.resolve import resolve
from queries.schema import Dataset, Numeric
from queries.slots import Joint, Slot, Term, kin_of, slot_of

MAX_RHO_NANO = 100 * NANO
"""Largest cost of one query: rho = 100 is no privacy at all, so more is a slip of the keyboard."""
MIN_SHARE_VARIANCE = 16
"""The sigma of every part of a share is at least 4 lattice steps, where a sum of discrete Gaussians is one."""
MOST_LAYERS = 8
LARGEST_LAYERED = 500
"""Institutions above whom noise has no layers: they draw their neighbours, and the argument is for a full graph."""
MOST_LAYER_SHARES = 1600
"""That a member deals for its layers: beyond, rosters would grow faster than what they save."""
MOST_DRAWS = 1 << 22
"""Of layers, by all institutions together: about a tenth of a second for whoever takes them off."""
LOG_TAU = -60 * log(10)
"""Largest tolerated natural logarithm of tau, what a sum of discrete Gaussians costs beyond a continuous one."""
LEAST_SCALE = 64
"""Lattice steps of the narrowest discrete Laplace: its variance is 2 scale^2 less 1/6, so 2 scale^2 to five digits."""
_RING = 1 << 62  # signed 64-bit sums, with one bit to spare
_ROOM = 1 << 61  # what the unrefined sums may use of it; the rest is for the noise
_MAX_SCALE = 40
_MIN_SCALE = 20


@dataclass(frozen=True, slots=True)
class NoiseShape:
    """How much noise a release carries, in squared steps of the refined lattice: integers multiplied by 2^refine_bits.

    Each institution draws discrete Gaussians of `share_variance` in all for every coordinate, enough for the fewest
    that a round needs. Part of it is in layers: layer i of variance `layers[i]` is taken off again where at least
    `rungs[i]` institutions survive, which is a rising sequence. `central_variance` is what a trusted curator would add.

    With a `scale`, for a dataset without a delta, the curator's noise is discrete Laplace of this scale, of variance
    2 scale^2, and what institutions draw are parts of it that add up (docs/noise.md), in proportion to the variances.
    """

    refine_bits: int
    share_variance: Fraction
    central_variance: Fraction
    rungs: tuple[int, ...] = ()
    layers: tuple[Fraction, ...] = ()
    scale: Fraction | None = None

    @property
    def pure(self) -> bool:
        """Whether this is noise of a dataset without a delta."""
        return self.scale is not None

    def part(self, variance: Fraction) -> Fraction:
        """Return which part of a trusted curator's noise this variance is."""
        return variance / self.central_variance

    @property
    def base_variance(self) -> Fraction:
        """What no round takes off an institution's noise."""
        return self.share_variance - sum(self.layers)

    def kept_variance(self, survivors: int) -> Fraction:
        """Variance of what is left of each institution's noise in a sum over `survivors` of them."""
        opened = (layer for rung, layer in zip(self.rungs, self.layers, strict=True) if survivors >= rung)
        return self.share_variance - sum(opened, Fraction(0))

    def total_variance(self, survivors: int) -> Fraction:
        """Variance of the noise in each coordinate of a sum over `survivors` institutions."""
        return survivors * self.kept_variance(survivors)


@dataclass(frozen=True)
class Plan:
    """What a query releases. The vector's index of a cell and slot is `cell * len(slots) + slot`.

    Every sum is multiplied by its slot's gain, 1 unless outputs were given weights: the same noise is then less of it.
    `dataset` is the published one with the query's derived values as columns after its own.
    """

    query: ir.Query
    dataset: Dataset
    cells: tuple[tuple[str, ...], ...]
    slots: tuple[Slot, ...]
    gains: tuple[int, ...]
    histograms: tuple[ir.Histogram | Joint, ...]
    scale_bits: int
    rows_per_person: int
    delta_squared: int
    delta_one: int

    @property
    def published(self) -> Dataset:
        """The dataset as it is published, without the query's derived values."""
        columns = self.dataset.columns
        return replace(self.dataset, columns=columns[: len(columns) - len(self.query.derived)])

    @property
    def length(self) -> int:
        """Coordinates of the released vector."""
        return len(self.cells) * len(self.slots)

    @cached_property
    def positions(self) -> Mapping[Slot, int]:
        """Index of each slot within a cell."""
        return {slot: index for index, slot in enumerate(self.slots)}

    @cached_property
    def finer(self) -> Mapping[int, tuple[int, tuple[int, ...]]]:
        """For a histogram that need not be counted, the finest one whose bins sum to its own, and where each begins."""
        cut = {number: each for number, each in enumerate(self.histograms) if isinstance(each, ir.Histogram)}
        found: dict[int, tuple[int, tuple[int, ...]]] = {}
        for number, coarse in cut.items():
            finer = [other for other, fine in cut.items() if _refines(fine, coarse)]
            if finer:
                finest = max(finer, key=lambda other: len(cut[other].edges))
                places = {edge: place for place, edge in enumerate(cut[finest].edges)}
                found[number] = finest, tuple(places[edge] for edge in coarse.edges[:-1])
        return found

    @property
    def largest_sum(self) -> int:
        """Bound on the absolute value of every exact sum over all institutions, in unrefined lattice steps."""
        return max(self.gains) * _rows_in_all(self.dataset, self.rows_per_person) << self.scale_bits

    def noise(self, rho_nano: int, *, threshold: int, colluders: int, invited: int) -> NoiseShape:
        """Return the noise of a release that costs rho_nano / 10^9. Raise as `noise_shape`."""
        pure = self.dataset.delta == 0
        shape, sensitivity = (pure_shape, self.delta_one) if pure else (noise_shape, self.delta_squared)
        return shape(
            sensitivity,
            self.largest_sum,
            rho_nano,
            threshold=threshold,
            colluders=colluders,
            invited=invited,
            length=self.length,
        )


def noise_shape(
    delta_squared: int,
    largest_sum: int,
    rho_nano: int,
    *,
    threshold: int,
    colluders: int,
    invited: int,
    length: int,
) -> NoiseShape:
    """Return the smallest refinement and the noise that give rho = rho_nano / 10^9 of zero-concentrated privacy.

    `delta_squared` is the squared L2 sensitivity, `largest_sum` a bound on every exact sum, in unrefined steps,
    `length` the number of coordinates. Whatever a round of u survivors takes off, any `u - colluders` of them alone
    carry sigma^2 = delta^2 / (2 rho). Raise QueryError where the cost or the cohort is impossible, or where sum and
    noise could leave the 64-bit ring.
    """
    _check_request(rho_nano, threshold, colluders, invited)
    unrefined = Fraction(delta_squared * NANO, 2 * rho_nano)
    rungs = rungs_of(threshold, invited, length)
    whole, parts = _shares(threshold, rungs, colluders)
    smallest = min(whole - sum(parts), *parts) if parts else whole
    bits = 0
    while unrefined * smallest * 4**bits < MIN_SHARE_VARIANCE:
        bits += 1
    sigma_squared = unrefined * 4**bits
    layers = tuple(sigma_squared * part for part in parts)
    shape = NoiseShape(bits, sigma_squared * whole, sigma_squared, rungs, layers)
    if log_tau(sigma_squared * smallest, invited * (1 + len(layers))) > LOG_TAU:
        raise QueryError(
            f"{invited} institutions are more than noise in shares is proved for", hint="ask fewer institutions"
        )
    deviation = isqrt(int(shape.total_variance(invited))) + 1
    _check_ring((largest_sum << bits) + 40 * deviation)
    return shape


def pure_shape(
    delta_one: int,
    largest_sum: int,
    rho_nano: int,
    *,
    threshold: int,
    colluders: int,
    invited: int,
    length: int,
) -> NoiseShape:
    """Return the noise that gives pure epsilon = sqrt(2 rho), without a delta; otherwise as `noise_shape`.

    `delta_one` is the L1 sensitivity in unrefined steps. Whatever a round of u survivors takes off, the parts of any
    `u - colluders` of them add up to a whole discrete Laplace of scale delta_one / epsilon, exactly.
    """
    _check_request(rho_nano, threshold, colluders, invited)
    scale = Fraction(delta_one * NANO, pure_epsilon_nano(rho_nano))
    rungs = rungs_of(threshold, invited, length)
    whole, parts = _shares(threshold, rungs, colluders)
    bits = 0
    while scale < LEAST_SCALE:
        bits, scale = bits + 1, 2 * scale
    variance = 2 * scale**2
    # (4/3)^r e^(-x / 2t) bounds the tail of r parts: beyond (300 + r) t it is below e^-150
    _check_ring((largest_sum << bits) + int((300 + invited * whole) * scale))
    layers = tuple(variance * part for part in parts)
    return NoiseShape(bits, variance * whole, variance, rungs, layers, scale)


def _check_request(rho_nano: int, threshold: int, colluders: int, invited: int) -> None:
    if not 1 <= rho_nano <= MAX_RHO_NANO:
        raise QueryError(
            f"a query costs rho between {1 / NANO:g} and {MAX_RHO_NANO // NANO}",
            hint="choose epsilon between 0.01 and 10",
        )
    if colluders < 0 or not colluders < threshold <= invited or 2 * threshold <= invited + colluders:
        raise QueryError(
            f"threshold {threshold} is impossible for {invited} institutions of which {colluders} may collude",
            hint="2 threshold must exceed institutions + colluders",
        )


def _shares(threshold: int, rungs: tuple[int, ...], colluders: int) -> tuple[Fraction, list[Fraction]]:
    """Return an institution's share of the curator's noise, and which parts of it are layers."""
    steps = [Fraction(1, survivors - colluders) for survivors in (threshold, *rungs)]
    return steps[0], [above - below for above, below in pairwise(steps)]


def _check_ring(largest: int) -> None:
    if largest >= _RING:
        raise QueryError(
            "sum and noise of this query do not fit into 62 bits",
            hint="spend a larger epsilon, or limit the rows per person",
        )


def rungs_of(threshold: int, invited: int, length: int) -> tuple[int, ...]:
    """Return at which numbers of survivors a layer of noise can be taken off, rising to all who are invited.

    Every number above the threshold, unless that makes more than MOST_LAYERS: then fewer, closer together near full
    attendance. Fewer also among more than 200, and where the vector is long, since whoever takes layers off draws them
    again; none in rounds whose members draw their neighbours.
    """
    spare = invited - threshold
    count = min(MOST_LAYERS, MOST_LAYER_SHARES // invited, spare, MOST_DRAWS // (invited * length))
    if invited > LARGEST_LAYERED or count < 1:
        return ()
    if count == spare:
        return tuple(range(threshold + 1, invited + 1))
    return tuple(sorted({invited + -spare * step**2 // count**2 for step in range(count)}))


def log_tau(share_variance: Fraction, shares: int) -> float:
    """Upper bound on the natural logarithm of tau = 10 sum_{k=1}^{n-1} exp(-2 pi^2 s^2 k/(k+1)).

    Kairouz, Liu and Steinke 2021, Proposition 14, for n shares of variance s^2. Every term is at most the first.
    """
    if shares < 2:
        return float("-inf")
    return log(10 * (shares - 1)) - pi * pi * float(share_variance)


def centre(kind: Numeric) -> tuple[float, float]:
    """Return (mid, half) of a column's public bounds: u = (x - mid) / half maps them to [-1, 1]."""
    return kind.lower / 2 + kind.upper / 2, kind.upper / 2 - kind.lower / 2


def make_plan(query: ir.Query, dataset: Dataset, *, most: int = MAX_AGGREGATES) -> Plan:
    """Return the plan of a query; deterministic. Raise QueryError as `resolve` does, or where sums could overflow."""
    query = resolve(query, dataset, most=most)
    if dataset.delta == 0 and any(isinstance(named.aggregate, ir.Model) for named in query.aggregates):
        raise QueryError(
            f"dataset {dataset.name!r} has no delta, which the noise of tests, models and curves needs",
            hint="ask for counts, sums, means, variances, histograms or quantiles",
        )
    dataset = expressions.extend(dataset, query.derived)
    outputs = dict.fromkeys(named.aggregate for named in query.aggregates)
    histograms = tuple(dict.fromkeys(each for output in outputs for each in _histograms(output, dataset)))
    # Outputs over one column share its slots: the distinct ones, in order of first use.
    gains: dict[Slot, int] = {}
    for named in query.aggregates:
        for slot in slots_of(named.aggregate, dataset, histograms):
            gains[slot] = max(gains.get(slot, 0), named.weight)
    if dataset.smallest_count:  # whether a group is shown is decided by how many persons are in it
        gains.setdefault(persons_of(query, dataset), 1)
    gains = _alike_among_kin(gains)
    slots = tuple(gains)
    rows = query.rows_per_person or dataset.max_rows
    cells = tuple(product(*(key.values for key in query.keys)))
    scale_bits = _scale_bits(slots, max(gains.values()) * _rows_in_all(dataset, rows))
    # A row changes each slot by at most its gain times 2^scale_bits, and of every histogram, or of slots for the keys
    # of the same columns, only one; a row at a bound of every column attains all of these at once, so the bound on its
    # squared norm is exact unless two outputs name different groups of one column, which no row is in together.
    return Plan(
        query=query,
        dataset=dataset,
        cells=cells,
        slots=slots,
        gains=tuple(gains.values()),
        histograms=histograms,
        scale_bits=scale_bits,
        rows_per_person=rows,
        delta_squared=_delta_squared(gains, cells=len(cells), rows=rows, places=dataset.max_institutions_per_person)
        << 2 * scale_bits,
        delta_one=_delta_one(gains, cells=len(cells), rows=rows, places=dataset.max_institutions_per_person)
        << scale_bits,
    )


def slots_of(  # noqa: PLR0911 -- one return a kind of node
    aggregate: ir.Aggregate, dataset: Dataset, histograms: tuple[ir.Histogram | Joint, ...]
) -> tuple[Slot, ...]:
    """Return the slots one output is computed from: the count of rows first where there is one, then the moments."""
    if isinstance(aggregate, ir.Model):
        return models.layout(aggregate, dataset, histogram_of(aggregate, dataset, histograms)).slots
    if isinstance(aggregate, ir.Persons):
        return (Slot("persons"),)
    column = aggregate.column
    if column is None or isinstance(aggregate, ir.Count):
        return (_count(column, dataset),)
    if isinstance(aggregate, ir.Quantile):
        numbers = [(histograms.index(level), len(level.edges) - 1) for level in levels_of(aggregate, dataset)]
        return tuple(Slot("bin", column, place, number) for number, bins in numbers for place in range(bins))
    if isinstance(aggregate, ir.Histogram):
        bins = len(aggregate.edges) - 1 if aggregate.edges else len(dataset.categorical(column).keys)
        number = histograms.index(aggregate)
        return tuple(Slot("bin", column, bin_number, number) for bin_number in range(bins))
    match aggregate:
        case ir.Sum() if centre(dataset.numeric(column))[0] == 0:
            return (Slot("linear", column),)  # the sum of x is half times the sum of u: no count needed
        case ir.Sum() | ir.Mean():
            return _count(column, dataset), Slot("linear", column)
        case ir.Variance() | ir.Stddev():
            return _count(column, dataset), Slot("linear", column), Slot("square", column)
        case ir.Skewness() | ir.Kurtosis():
            powers = range(4 if isinstance(aggregate, ir.Skewness) else 5)
            return tuple(slot_of(Term((column,) * power), (column,), dataset) for power in powers)


def persons_of(query: ir.Query, dataset: Dataset) -> Slot:
    """Return the slot that counts the persons of a cell: its rows, where nobody has more than one."""
    one_row = dataset.max_rows == 1 or query.rows_per_person == 1
    return Slot("rows") if one_row else Slot("persons")


def levels_of(aggregate: ir.Quantile, dataset: Dataset) -> tuple[ir.Histogram, ...]:
    """Return the histograms that a quantile is read from, coarse first."""
    levels = tree_of(dataset.numeric(aggregate.column)).levels
    return tuple(ir.Histogram(aggregate.column, edges) for edges in levels)


def histogram_of(aggregate: ir.Aggregate, dataset: Dataset, histograms: tuple[ir.Histogram | Joint, ...]) -> int:
    """Return which of a plan's histograms an output reads; 0 where it reads none."""
    own = _histograms(aggregate, dataset)
    return histograms.index(own[0]) if own else 0


def _histograms(aggregate: ir.Aggregate, dataset: Dataset) -> tuple[ir.Histogram | Joint, ...]:
    if isinstance(aggregate, ir.IndependenceTest | ir.Survival | ir.LogRank):
        return (models.joint_of(aggregate, dataset),)
    if isinstance(aggregate, ir.Quantile):
        return levels_of(aggregate, dataset)
    return (aggregate,) if isinstance(aggregate, ir.Histogram) else ()


def _refines(fine: ir.Histogram, coarse: ir.Histogram) -> bool:
    """Whether each bin of a histogram is a union of bins of another, other one."""
    if fine.column != coarse.column or not 0 < len(coarse.edges) < len(fine.edges):
        return False
    ends = coarse.edges[0] == fine.edges[0] and coarse.edges[-1] == fine.edges[-1]
    return ends and set(coarse.edges) <= set(fine.edges)


def _alike_among_kin(gains: Mapping[Slot, int]) -> dict[Slot, int]:
    """Give slots of which a row changes only one the largest gain of any: the others cost nothing more."""
    most: dict[Hashable, int] = {}
    for slot, gain in gains.items():
        most[kin_of(slot)] = max(most.get(kin_of(slot), 0), gain)
    return {slot: most[kin_of(slot)] for slot in gains}


def _delta_squared(gains: Mapping[Slot, int], *, cells: int, rows: int, places: int) -> int:
    """Return the squared L2 sensitivity in units of one row's step.

    All rows in one cell move it by rows in each coordinate that a row touches; a count of persons moves by 1 in each
    cell that has any of them; each times its gain. Spreading r rows over c cells turns r^2 of the former into at most
    (r - c + 1)^2 + c - 1 and 1 of the latter into c. Both are convex in c, so the worst is one cell, or all there are.
    """
    kin = {kin_of(slot): gain for slot, gain in gains.items() if slot.kind != "persons"}
    by_rows = sum(gain**2 for gain in kin.values())
    persons = sum(gain**2 for slot, gain in gains.items() if slot.kind == "persons")
    spread = min(rows, cells)
    return places**2 * max(((rows - c + 1) ** 2 + c - 1) * by_rows + c * persons for c in (1, spread))


def _delta_one(gains: Mapping[Slot, int], *, cells: int, rows: int, places: int) -> int:
    """Return the L1 sensitivity in units of one row's step: rows add up wherever they are, persons in every cell."""
    kin = {kin_of(slot): gain for slot, gain in gains.items() if slot.kind != "persons"}
    persons = sum(gain for slot, gain in gains.items() if slot.kind == "persons")
    return places * (rows * sum(kin.values()) + min(rows, cells) * persons)


def _count(column: str | None, dataset: Dataset) -> Slot:
    """Return the slot that counts the rows in which a column has a value.

    A query leaves out rows that lack a value in a column that is not nullable, so there every row counts.
    """
    return Slot("present", column) if column is not None and dataset.column(column).nullable else Slot("rows")


def _rows_in_all(dataset: Dataset, rows_per_person: int) -> int:
    return dataset.max_persons * rows_per_person * dataset.max_institutions_per_person


def _scale_bits(slots: tuple[Slot, ...], rows: int) -> int:
    """Return f: 0 where only rows are counted, else as fine as sums of so many rows allow, at most 40."""
    if not any(slot.measures for slot in slots):
        return 0
    bits = min(_MAX_SCALE, (_ROOM // rows).bit_length() - 1)
    if bits < _MIN_SCALE:
        raise QueryError(
            "sums over this many rows do not fit into 62 bits",
            hint="limit the rows per person, give weights that differ less, or publish a smaller max_persons",
        )
    return bits

"""From a query and the public schema to the integer vector that is released, and to exactly what it discloses.

Everything here is a function of public values, so that analyst, coordinator and agent compute it alone and agree: the
cells, what a row adds to each coordinate, the exact sensitivity, and by `noise` what each institution must add.
The argument is docs/privacy.md. Must not know: data, any engine, how noise is drawn, how shares travel.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from queries import expressions, ir, models
from queries.errors import QueryError
from queries.limits import MAX_AGGREGATES
from queries.noise import NoiseShape, noise_shape, pure_shape
from queries.quantiles import tree_of
from queries.resolve import resolve
from queries.schema import Dataset, Numeric
from queries.slots import Joint, Slot, Term, kin_of, slot_of

_ROOM = 1 << 61  # what the unrefined sums may use of it; the rest is for the noise
_MAX_SCALE = 40
_MIN_SCALE = 20


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

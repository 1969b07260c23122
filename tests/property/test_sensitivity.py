"""Two datasets that differ in one person differ, in exact integers, by at most the sensitivity that a plan states.

The encoder here is written from the definition of slots alone and in plain Python, one row at a time: it is the
reference for what agents compute inside their databases.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor

import pytest
from harness.nodes import evaluate, expressions, models, statistics
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from queries import ir
from queries.errors import QueryError
from queries.plan import Plan, make_plan
from queries.resolve import columns_used, extended
from queries.schema import Categorical, Column, Dataset, Numeric, validate
from queries.slots import Axis, Joint, Slot

Cell = float | str | None
Line = Mapping[str, Cell]


def known(column: Column, value: Cell) -> Cell:
    """The value that counts: None where it is missing or an unpublished category that has no "other" cell."""
    if value is None or isinstance(column.kind, Numeric) or value in column.kind.categories:
        return value
    return "other" if column.kind.other else None


def holds(predicate: ir.Predicate, row: Line) -> bool | None:
    """SQL's three-valued truth."""
    match predicate:
        case ir.IsNull(column):
            return row[column] is None
        case ir.Not(part):
            truth = holds(part, row)
            return None if truth is None else not truth
        case ir.AllOf(parts) | ir.AnyOf(parts):
            decisive = isinstance(predicate, ir.AnyOf)
            truths = [holds(part, row) for part in parts]
            return decisive if decisive in truths else None if None in truths else not decisive
        case ir.IsIn(column, values):
            return None if row[column] is None else row[column] in values
    value = row[predicate.column]
    if value is None:
        return None
    low, same = value < predicate.value, value == predicate.value  # type: ignore[operator] # resolved: of one type
    return {"=": same, "!=": not same, "<": low, "<=": low or same, ">": not low and not same, ">=": not low}[
        predicate.operator
    ]


def nearest(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def in_units(plan: Plan, column: str, row: Line) -> Fraction:
    kind = plan.dataset.numeric(column)
    lower, upper = Fraction(kind.lower), Fraction(kind.upper)
    return (2 * min(max(Fraction(row[column]), lower), upper) - lower - upper) / (upper - lower)


def place(axis: Axis, row: Line) -> int | None:
    value, edges = row[axis.column], axis.edges
    if edges and value is not None:
        return min(max(bisect_right(edges, value) - 1, 0), len(edges) - 2)
    return next((number for number, group in enumerate(axis.groups) if value in group), None)


def product_of(plan: Plan, slot: Slot, row: Line) -> int:
    if any(row[name] is None for name in slot.among + slot.factors) or any(
        row[name] != key for name, key in slot.levels
    ):
        return 0
    value = Fraction(1 << plan.scale_bits)
    for name in slot.factors:
        value *= in_units(plan, name, row)
    return nearest(value)


def joint_bin(joint: Joint, row: Line) -> int | None:
    index = 0
    for axis in joint.axes:
        at = place(axis, row)
        if at is None:
            return None
        index = index * axis.bins + at
    return index


def amount(plan: Plan, slot: Slot, row: Line) -> int:  # noqa: PLR0911 -- one a kind
    """What a row adds to a slot that is no product."""
    one = 1 << plan.scale_bits
    if slot.kind == "bin" and isinstance(joint := plan.histograms[slot.histogram], Joint):
        return one * (joint_bin(joint, row) == slot.bin)
    if slot.column is None:
        return one
    value, kind = row[slot.column], plan.dataset.column(slot.column).kind
    if value is None:
        return 0
    if slot.kind == "present":
        return one
    if slot.kind == "bin" and isinstance(kind, Categorical):
        return one * (kind.keys[slot.bin] == value)
    if slot.kind == "bin":
        edges = plan.histograms[slot.histogram].edges
        return one * (min(max(bisect_right(edges, value) - 1, 0), len(edges) - 2) == slot.bin)
    u = in_units(plan, slot.column, row)
    return nearest(u * one) if slot.kind == "linear" else nearest(u * u * one)


def derive(plan: Plan, row: dict[str, Cell]) -> None:
    """Add the values that a query derives to a row."""
    for each in plan.query.derived:
        clipped: dict[str, Cell] = {
            name: min(max(value, kind.lower), kind.upper)
            if value is not None and isinstance(kind := plan.dataset.column(name).kind, Numeric)
            else value
            for name, value in row.items()
        }
        row[each.name] = evaluate(each.value, clipped, lambda predicate: holds(predicate, row))


def used(query: ir.Query) -> set[str]:
    """Columns that a query of these tests names."""
    return set(columns_used(query))


def added(plan: Plan, slot: Slot, row: Line) -> int:
    """What a row adds to one slot of its cell."""
    return product_of(plan, slot, row) if slot.kind == "product" else amount(plan, slot, row)


def encode(plan: Plan, person: Sequence[Line]) -> list[int]:
    """The vector of one person at one institution; which rows beyond the bound are dropped is immaterial here."""
    vector = [0] * plan.length
    kept = []
    for raw in person:
        row = {name: known(plan.dataset.column(name), value) for name, value in raw.items()}
        derive(plan, row)
        complete = all(row[name] is not None or plan.dataset.column(name).nullable for name in used(plan.query))
        if complete and (plan.query.where is None or holds(plan.query.where, row)):
            kept.append(row)
    for row in kept[: plan.rows_per_person]:
        group = tuple(row[key.column] for key in plan.query.keys)
        if group in plan.cells:
            first = plan.cells.index(group) * len(plan.slots)
            for position, (slot, gain) in enumerate(zip(plan.slots, plan.gains, strict=True)):
                if slot.kind == "persons":
                    vector[first + position] = gain << plan.scale_bits
                else:
                    vector[first + position] += gain * added(plan, slot, row)
    return vector


@dataclass(frozen=True)
class Question:
    plan: Plan
    others: list[list[Line]]
    person: list[list[Line]]  # rows of the one person, institution by institution


NUMBERS = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 3))


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    columns = []
    for number in range(draw(st.integers(2, 3))):
        lower = draw(NUMBERS)
        kind = Numeric(lower, lower + draw(st.floats(0.01, 500)))
        if draw(st.booleans()):
            kind = Numeric(-kind.upper, kind.upper) if kind.upper > 0 else kind
        columns.append(Column(f"x{number}", kind, nullable=draw(st.booleans())))
    columns.append(Column("x9", Numeric(0.0, 20.0, integer=True), nullable=draw(st.booleans())))
    for number in range(draw(st.integers(1, 2))):
        kind = Categorical(("a", "b", "c")[: draw(st.integers(1, 3))], other=draw(st.booleans()))
        columns.append(Column(f"g{number}", kind, nullable=draw(st.booleans())))
    return validate(
        Dataset(
            "data",
            tuple(columns),
            "person",
            max_rows=draw(st.integers(1, 6)),
            max_institutions_per_person=draw(st.integers(1, 3)),
            max_persons=draw(st.sampled_from([10, 100_000, 1 << 32])),
        )
    )


# Made once, of columns that every dataset here has: a recursive strategy must not be made anew for each draw.
EXPRESSIONS = expressions(["x0", "x1"], st.sampled_from([ir.IsNull("x0"), ir.Comparison("g0", "=", "a")]))


@st.composite
def derived_values(draw: st.DrawFn, dataset: Dataset) -> tuple[ir.Derived, ...]:
    """None, or one with finite bounds."""
    derived = (ir.Derived("d0", draw(EXPRESSIONS)),)
    try:
        wider = extended(derived, dataset)
    except QueryError:
        return ()
    kind = wider.numeric("d0")
    return derived if kind.upper - kind.lower > 1e-6 * max(1.0, abs(kind.upper), abs(kind.lower)) else ()


@st.composite
def queries(draw: st.DrawFn, published: Dataset) -> ir.Query:
    derived = draw(derived_values(published))
    dataset = extended(derived, published)
    numeric = [c for c in dataset.columns if isinstance(c.kind, Numeric)]
    grouped = [c for c in dataset.columns if isinstance(c.kind, Categorical)]
    aggregates: list[ir.Aggregate] = []
    for _ in range(draw(st.integers(1, 4))):
        column = draw(st.sampled_from(numeric))
        inner = st.floats(column.kind.lower, column.kind.upper)
        edges = tuple(sorted(set(draw(st.lists(inner, min_size=2, max_size=5, unique=True)))))
        choices: list[ir.Aggregate] = [
            ir.Count(),
            ir.Count(draw(st.sampled_from(dataset.columns)).name),
            # a tree over other columns has thousands of leaves, which takes this encoder long
            *(s for s in statistics(column.name) if column.kind.integer or not isinstance(s, ir.Quantile)),
            ir.Histogram(column.name, edges),
            ir.Histogram(draw(st.sampled_from(grouped)).name),
        ]
        grids = [(c.name, c.kind.keys) for c in grouped]
        names = [column.name, *(c.name for c in numeric if c is not column)]
        cut = edges if len(edges) > 1 else (column.kind.lower, column.kind.upper)
        aggregates.append(draw(st.sampled_from(choices) | models(names, grids, cut)))
    # a thousand times the rows of a whole population would leave no room for the noise
    weights = st.just(1) | st.integers(1, 1000 if dataset.max_persons <= 100_000 else 4)
    where: ir.Predicate | None = None
    if draw(st.booleans()):
        column = draw(st.sampled_from(numeric))
        literal = draw(st.floats(column.kind.lower, column.kind.upper))
        where = ir.Comparison(column.name, draw(st.sampled_from(ir.OPERATORS)), literal)
    return ir.Query(
        "data",
        tuple(ir.NamedAggregate(f"out{i}", a, draw(weights)) for i, a in enumerate(aggregates)),
        where,
        tuple(ir.Key(column.name) for column in draw(st.lists(st.sampled_from(grouped), unique=True, max_size=2))),
        draw(st.none() | st.integers(1, dataset.max_rows)),
        derived,
    )


@st.composite
def questions(draw: st.DrawFn) -> Question:
    dataset = draw(datasets())
    values = {
        c.name: st.none() | (st.sampled_from([c.kind.lower, c.kind.upper]) | NUMBERS)
        if isinstance(c.kind, Numeric)
        else st.sampled_from([None, "a", "b", "c", "unpublished"])
        for c in dataset.columns
    }
    rows = st.lists(st.fixed_dictionaries(values), max_size=10)
    repeated = st.tuples(st.fixed_dictionaries(values), st.integers(1, 10)).map(lambda pair: [pair[0]] * pair[1])
    places = dataset.max_institutions_per_person
    return Question(
        plan=make_plan(draw(queries(dataset)), dataset),
        others=draw(st.lists(rows, max_size=3)),
        person=draw(st.lists(rows | repeated, min_size=places, max_size=places)),
    )


def total(plan: Plan, persons: Sequence[Sequence[Line]]) -> list[int]:
    vectors = [encode(plan, person) for person in persons]
    return [sum(column) for column in zip(*vectors, strict=True)] if vectors else [0] * plan.length


def moved(plan: Plan, with_person: Sequence[Sequence[Line]], without: Sequence[Sequence[Line]]) -> list[int]:
    return [a - b for a, b in zip(total(plan, with_person), total(plan, without), strict=True)]


def squared_distance(plan: Plan, with_person: Sequence[Sequence[Line]], without: Sequence[Sequence[Line]]) -> int:
    return sum(step**2 for step in moved(plan, with_person, without))


def distance_in_steps(plan: Plan, with_person: Sequence[Sequence[Line]], without: Sequence[Sequence[Line]]) -> int:
    return sum(abs(step) for step in moved(plan, with_person, without))


@given(questions())
@settings(max_examples=200, deadline=None)
def test_neighbours_differ_by_at_most_the_stated_sensitivity(question: Question) -> None:
    plan = question.plan
    pair = plan, question.others + question.person, question.others
    assert isinstance(plan.delta_squared, int)
    assert isinstance(plan.delta_one, int)
    assert squared_distance(*pair) <= plan.delta_squared
    assert distance_in_steps(*pair) <= plan.delta_one


@given(questions())
@settings(max_examples=100, deadline=None)
def test_the_stated_sensitivity_is_attained(question: Question) -> None:
    """A person with every allowed row, equal, complete and at the upper bounds, moves the vector by exactly delta."""
    assume(not question.plan.query.derived)  # columns at their bounds need not put an expression at its own
    plan = make_plan(replace(question.plan.query, where=None), question.plan.dataset)
    # Every generated output counts the second key of a column, or the only one.
    row: Line = {
        c.name: c.kind.upper if isinstance(c.kind, Numeric) else c.kind.keys[:2][-1] for c in plan.dataset.columns
    }
    places = plan.dataset.max_institutions_per_person
    person = [[row] * (plan.rows_per_person + 3)] * places
    worst = squared_distance(plan, question.others + person, question.others)
    farthest = distance_in_steps(plan, question.others + person, question.others)
    if any(slot.kind == "persons" for slot in plan.slots):  # it may take rows in as many cells as possible
        grouped = [key.column for key in plan.query.keys]
        assume(not {*grouped} & {name for slot in plan.slots for name in slot.columns})  # other slots stay as they are
        cells = [{**row, **dict(zip(grouped, cell, strict=True))} for cell in plan.cells]
        apart = [row] * (plan.rows_per_person - len(cells)) + cells
        person = [[*apart[-plan.rows_per_person :]]] * places
        worst = max(worst, squared_distance(plan, question.others + person, question.others))
        farthest = max(farthest, distance_in_steps(plan, question.others + person, question.others))
    assert worst == plan.delta_squared
    assert farthest == plan.delta_one


@given(questions())
@settings(max_examples=100, deadline=None)
def test_no_exact_sum_leaves_its_stated_range(question: Question) -> None:
    plan = question.plan
    persons = 1 + len(question.others)
    bound = plan.largest_sum // plan.dataset.max_persons * persons
    assert all(abs(x) <= bound for x in total(plan, question.others + question.person))


@pytest.mark.parametrize(
    ("aggregates", "squared", "steps"),
    [([], 3, 3), ([ir.Count()], 16 + 1, 4 + 3), ([ir.Histogram("g")], 16 + 1, 4 + 3)],
)
def test_a_count_of_persons_moves_by_one_a_cell(aggregates: list[ir.Aggregate], squared: int, steps: int) -> None:
    """Alone at worst once in each of three cells; beside anything that counts rows, all four rows in one cell."""
    columns = (Column("g", Categorical(("a", "b", "c")), nullable=False), Column("x", Numeric(0, 1)))
    dataset = Dataset("data", columns, "person", max_rows=4, max_institutions_per_person=2)
    named = tuple(ir.NamedAggregate(f"o{i}", each) for i, each in enumerate([ir.Persons(), *aggregates]))
    plan = make_plan(ir.Query("data", named, keys=(ir.Key("g"),)), dataset)
    rows: list[list[Line]] = [[{"g": key, "x": 1.0} for key in keys] for keys in ("abca", "aaaa", "aabb", "aaab")]
    worst = max(squared_distance(plan, [person] * 2, []) for person in rows)
    assert worst == plan.delta_squared == 4 * squared
    assert max(distance_in_steps(plan, [person] * 2, []) for person in rows) == plan.delta_one == 2 * steps


def test_ten_thousand_rows_of_one_person_move_no_more_than_the_bound() -> None:
    column = Column("x", Numeric(0, 1))
    dataset = Dataset("data", (column, Column("g", Categorical(("a", "b")))), "person", max_rows=20)
    named = (ir.NamedAggregate("n", ir.Count()), ir.NamedAggregate("sd", ir.Stddev("x")))
    plan = make_plan(ir.Query("data", named, keys=(ir.Key("g"),), rows_per_person=20), dataset)
    rows: list[Line] = [{"x": float(i % 2), "g": "ab"[i % 3 == 0]} for i in range(10_000)]
    distance = squared_distance(plan, [rows], [])
    assert 0 < distance < plan.delta_squared

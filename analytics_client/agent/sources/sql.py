"""From a plan to the one statement that computes its sums inside a database, as a sqlglot tree.

The statement reads a table `local_rows` of this shape, which every source provides:

    _row      an integer, unique in a person       _person   who the row is about; never null
    _rows     how many rows `_person` has in all   NAME      of every schema column: a number without NaN or infinity,
    (only with a privacy unit; _rows optional)               or the position of its category in the published keys

It filters, bounds the rows of a person, clips, quantises and sums. Rows of the result: `part` (0 for the sums, 1.. for
the histograms), `cell`, `bin`, and one column a slot. Names and literals enter as tree nodes, never as text; the salt
is the statement's one parameter. Must not know: connections, files, noise.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from analytics_client.agent.sources import derived
from analytics_client.agent.sources.bins import axes_of, bin_of, counted, guess_of, is_wide
from analytics_client.agent.sources.terms import (
    Dialect,
    ascending,
    cast,
    column,
    double,
    integer,
    present,
    scalar,
    select,
)
from analytics_client.agent.sources.terms import condition as condition_of
from queries import ir
from queries.plan import Plan, centre
from queries.resolve import columns_used
from queries.schema import Dataset
from queries.slots import Slot

FEW_COLUMNS = 2
"""Up to so many columns each sum tests by itself that a row has a value in all of them."""
TABLE, ROW, PERSON, ROWS = "local_rows", "_row", "_person", "_rows"  # no schema name begins with _


def render(plan: Plan, dialect: Dialect, *, rows_known: bool = True) -> str:
    """Return the statement as text. It takes one parameter, the salt, where `needs_salt`."""
    return statement(plan, dialect, rows_known=rows_known).sql(dialect=dialect)


def render_rows(plan: Plan, dialect: Dialect, *, rows_known: bool = True) -> str:
    """Return the statement of `rows_statement` as text."""
    return rows_statement(plan, dialect, rows_known=rows_known).sql(dialect=dialect)


def rows_statement(plan: Plan, dialect: Dialect, *, rows_known: bool = True) -> exp.Query:
    """Return the statement that reads the rows a plan would sum: filtered, bounded per person, one column each."""
    steps = derived.steps(plan, TABLE)
    steps["selected"] = _selected(plan, (TABLE, *steps)[-1], rows_known)
    if needs_salt(plan):
        steps["kept"] = _kept(plan, dialect, rows_known)
    query = select([column(name) for name in _slot_columns(plan)], list(steps)[-1])
    named = [exp.CTE(this=step, alias=exp.TableAlias(this=exp.to_identifier(name))) for name, step in steps.items()]
    query.set("with_", exp.With(expressions=named))
    return query


def needs_salt(plan: Plan) -> bool:
    """Return whether rows of a person are chosen, and so by which salt matters."""
    return plan.dataset.privacy_unit != ""


def statement(plan: Plan, dialect: Dialect, *, rows_known: bool = True) -> exp.Query:
    """Return the tree. `rows_known`: the table has `_rows`, so that persons with few rows need no lottery."""
    sums = [slot for slot in plan.slots if slot.kind != "bin"]
    parts: list[exp.Select] = []
    if sums:
        parts.append(_part(0, exp.Literal.number(0), [_sum(plan, slot) for slot in sums]))
    for number, histogram in enumerate(plan.histograms, start=1):
        if number - 1 in plan.finer:
            continue  # its bins are sums of another's, which whoever reads the result makes
        counts = [exp.Count(this=exp.Star()), *[exp.Null() for _ in sums[1:]]]
        part = _part(number, bin_of(number, histogram, plan.dataset, dialect), counts)
        part.where(*counted(histogram, plan.dataset), copy=False)
        parts.append(part.group_by(exp.Literal.number(3), copy=False))
    query: exp.Query = parts[0]
    for part in parts[1:]:
        query = exp.Union(this=query, expression=part, distinct=False)
    steps = derived.steps(plan, TABLE)
    steps["selected"] = _selected(plan, (TABLE, *steps)[-1], rows_known)
    if needs_salt(plan):
        steps["kept"] = _kept(plan, dialect, rows_known)
    steps["cells"] = _cells(plan, list(steps)[-1], dialect)
    named = [exp.CTE(this=step, alias=exp.TableAlias(this=exp.to_identifier(name))) for name, step in steps.items()]
    query.set("with_", exp.With(expressions=named))
    return query


def _part(number: int, bin_: exp.Expr, sums: Sequence[exp.Expr]) -> exp.Select:
    outputs = [
        exp.alias_(exp.Literal.number(number), "part"),
        column("_cell").as_("cell"),
        exp.alias_(bin_, "bin"),
        *[exp.alias_(total, f"s{index}") for index, total in enumerate(sums)],
    ]
    return select(outputs, "cells").group_by(exp.Literal.number(2), copy=False)


def _selected(plan: Plan, source: str, rows_known: bool) -> exp.Select:
    """Rows that satisfy the condition and hold a value in all columns that must have one."""
    query, dataset = plan.query, plan.dataset
    conditions = [condition_of(query.where, dataset)] if query.where is not None else []
    keys = {key.column for key in query.keys}
    needed = sorted(keys | {name for name in columns_used(query) if not dataset.column(name).nullable})
    conditions += [present(name) for name in needed]
    for key in query.keys:
        if len(key.values) < len(dataset.categorical(key.column).keys):
            chosen = [exp.Literal.number(code) for code in _positions(dataset, key)]
            conditions.append(exp.In(this=column(key.column), expressions=chosen))
    if all(slot.kind not in {"rows", "persons"} for slot in plan.slots):
        # A row without any value that is asked for adds nothing, and must not take the place of one that does.
        needs = dict.fromkeys(tuple(sorted(_needed(plan, slot))) for slot in plan.slots)
        conditions.append(exp.or_(*[exp.and_(*[present(name) for name in need]) for need in needs]))
    names = sorted(keys | set(_slot_columns(plan)))
    person = [ROW, PERSON, *([ROWS] if rows_known else [])] if needs_salt(plan) else []
    outputs: list[exp.Expr] = [column(name) for name in [*person, *names]]
    outputs = outputs or [exp.alias_(exp.Literal.number(1), "_one")]  # rows are only counted: any column will do
    return select(outputs, source).where(*conditions, copy=False)


def _kept(plan: Plan, dialect: Dialect, rows_known: bool) -> exp.Query:
    """At most `rows_per_person` rows of each person, chosen by lottery under the salt.

    Whoever has no more rows than that keeps them all: only the others are drawn, so the cost of the lottery follows
    their number, row by row, as the cost of everything else does.
    """
    limit = exp.Literal.number(plan.rows_per_person)
    names = sorted({key.column for key in plan.query.keys} | set(_slot_columns(plan)))
    columns = [column(name) for name in [*names, *_apart(plan)]] or [column(ROW)]
    place = exp.Window(
        this=exp.RowNumber(),
        partition_by=[column(PERSON)],
        order=exp.Order(expressions=[ascending(_lottery(dialect)), ascending(column(ROW))]),
    )
    drawn = select([*[c.copy() for c in columns], exp.alias_(place, "_place")], "selected")
    if rows_known:
        drawn.where(exp.GT(this=column(ROWS), expression=limit.copy()), copy=False)
    inside = exp.Subquery(this=drawn, alias=exp.TableAlias(this=exp.to_identifier("drawn")))
    winners = exp.Select(expressions=[c.copy() for c in columns], from_=exp.From(this=inside))
    winners.where(exp.LTE(this=column("_place"), expression=limit.copy()), copy=False)
    if not rows_known:
        return winners
    few = select(columns, "selected").where(exp.LTE(this=column(ROWS), expression=limit), copy=False)
    return exp.Union(this=few, expression=winners, distinct=False)


def _lottery(dialect: Dialect) -> exp.Expr:
    """A pseudo-random number of a row under the salt, different for every salt."""
    salt = cast("BIGINT", exp.Placeholder())
    if dialect == "postgres":
        return exp.func("HASHINT8EXTENDED", column(ROW), salt)
    if dialect == "spark":
        return exp.Anonymous(this="XXHASH64", expressions=[column(ROW), salt])
    # Hashing row and salt apart and combining them would keep an order of rows under every salt: hash them as one.
    return exp.Anonymous(this="HASH", expressions=[exp.Anonymous(this="XOR", expressions=[column(ROW), salt])])


def _cells(plan: Plan, source: str, dialect: Dialect) -> exp.Select:
    """The kept rows with their cell, values clipped and mapped to [-1, 1]."""
    outputs: list[exp.Expr] = [exp.alias_(_cell(plan), "_cell")]
    moments = {name for slot in plan.slots for name in slot.measures}
    outputs += [
        exp.alias_(_unit(plan.dataset, name, dialect), f"_u_{name}") for name in _slot_columns(plan) if name in moments
    ]
    outputs += [column(name) for name in [*_slot_columns(plan), *_apart(plan)]]
    outputs += [
        exp.alias_(exp.and_(*[present(name) for name in names]), f"_all_{place}")
        for place, names in enumerate(_complete(plan))
    ]
    if dialect == "duckdb":
        outputs += [
            exp.alias_(guess_of(axis), f"_g_{number}")
            for number, histogram in enumerate(plan.histograms, start=1)
            if number - 1 not in plan.finer
            for axis in axes_of(histogram)
            if is_wide(axis.edges)
        ]
    return select(outputs, source)


def _cell(plan: Plan) -> exp.Expr:
    """The index of a row's cell in `plan.cells`, which run through the last key fastest."""
    index: exp.Expr = exp.Literal.number(0)
    for key in plan.query.keys:
        codes = _positions(plan.dataset, key)
        position: exp.Expr = column(key.column)
        if codes != list(range(len(codes))):
            position = exp.Case(
                this=position,
                ifs=[exp.If(this=integer(code), true=integer(place)) for place, code in enumerate(codes)],
            )
        scaled = exp.Mul(this=exp.Paren(this=index), expression=integer(len(codes)))
        index = exp.Add(this=scaled, expression=position)
    return index


def _unit(dataset: Dataset, name: str, dialect: Dialect) -> exp.Expr:
    """A value clipped to its bounds and mapped to [-1, 1]; null stays null.

    The bounds map to -1 and 1 by rule, so that no rounding leads outside: values strictly between them are at least one
    float apart from either, which covers the rounding of the middle, and what division adds is below 2^-50. PostgreSQL
    fails where a product underflows: where the middle is (almost) 0, what is below 2^-153 of it is made 0 first.
    """
    kind = dataset.numeric(name)
    mid, half = centre(kind)
    inside: exp.Expr = exp.Paren(this=exp.Sub(this=column(name), expression=double(mid)))
    if dialect == "postgres" and abs(mid) < half * 2.0**-90:
        absorb = double(half * 2.0**-100)
        raised = exp.Paren(this=exp.Add(this=inside, expression=absorb))
        inside = exp.Paren(this=exp.Sub(this=raised, expression=absorb.copy()))
    return exp.Case(
        ifs=[
            exp.If(this=exp.LTE(this=column(name), expression=double(kind.lower)), true=double(-1.0)),
            exp.If(this=exp.GTE(this=column(name), expression=double(kind.upper)), true=double(1.0)),
        ],
        default=exp.Div(this=inside, expression=double(half)),
    )


def _sum(plan: Plan, slot: Slot) -> exp.Expr:
    """The sum of a slot over a cell's rows; of counts in rows, of moments in lattice steps."""
    if slot.kind == "product":
        return _product(plan, slot)
    if slot.kind == "persons":
        return exp.Count(this=exp.Distinct(expressions=[column(PERSON)]))
    if slot.column is None:
        return exp.Count(this=exp.Star())
    if slot.kind == "present":
        return exp.Count(this=column(slot.column))
    unit = column(f"_u_{slot.column}")
    return _total(plan, unit if slot.kind == "linear" else exp.Mul(this=unit, expression=unit.copy()))


def _product(plan: Plan, slot: Slot) -> exp.Expr:
    """The sum of a product over the rows in which its columns are present and have their keys."""
    dataset = plan.dataset
    conditions: list[exp.Expr] = [
        exp.EQ(this=column(name), expression=scalar(dataset, name, key)) for name, key in slot.levels
    ]
    complete = _complete(plan)
    if slot.among in complete:
        conditions.append(column(f"_all_{complete.index(slot.among)}"))
    else:
        conditions += [present(name) for name in slot.among if name not in slot.factors]
    if not slot.factors:
        return exp.Count(this=exp.Case(ifs=[exp.If(this=exp.and_(*conditions), true=integer(1))]))
    value: exp.Expr = column(f"_u_{slot.factors[0]}")
    for name in slot.factors[1:]:
        value = exp.Mul(this=value, expression=column(f"_u_{name}"))
    if conditions:
        value = exp.Case(ifs=[exp.If(this=exp.and_(*conditions), true=value)])
    return _total(plan, value)


def _complete(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Sets of columns whose presence is settled once a row: a model of many columns asks for it in every sum."""
    return tuple(dict.fromkeys(slot.among for slot in plan.slots if len(slot.among) > FEW_COLUMNS))


def _total(plan: Plan, value: exp.Expr) -> exp.Expr:
    """The sum of a value in [-1, 1] in lattice steps; a row in which it is null adds none.

    Halves are rounded up: engines' own rounding differs, to the even number or away from 0.
    """
    scaled = exp.Mul(this=value, expression=double(float(1 << plan.scale_bits)))
    raised = exp.Add(this=scaled, expression=double(0.5))
    steps = cast("BIGINT", exp.Floor(this=raised))  # at most 2^40 and a bit, which rounds to 2^40
    return exp.Coalesce(this=exp.Sum(this=steps), expressions=[integer(0)])


def _positions(dataset: Dataset, key: ir.Key) -> list[int]:
    published = {name: code for code, name in enumerate(dataset.categorical(key.column).keys)}
    return [published[value] for value in key.values]


def _slot_columns(plan: Plan) -> list[str]:
    return list(dict.fromkeys(name for slot in plan.slots for name in _needed(plan, slot)))


def _apart(plan: Plan) -> list[str]:
    """The person, where persons are told apart."""
    return [PERSON] if any(slot.kind == "persons" for slot in plan.slots) else []


def _needed(plan: Plan, slot: Slot) -> tuple[str, ...]:
    """Columns that must have a value for a row to add to a slot."""
    if slot.kind == "bin":
        return tuple(axis.column for axis in axes_of(plan.histograms[slot.histogram]))
    return slot.columns

"""SQL, the expression API and a real SQL engine agree on what a question means."""

from __future__ import annotations

import random
from functools import reduce
from operator import and_, or_
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queries import ir, schema, sql
from queries.builder import Condition, Measure, Table, _
from queries.encode import decode_query, encode_query
from queries.errors import CohortiumError, QueryError
from queries.resolve import resolve

PATIENTS = schema.Dataset(
    name="patients",
    privacy_unit="patient_id",
    max_rows=3,
    columns=(
        schema.Column("age", schema.Numeric(0, 120, integer=True)),
        schema.Column("date", schema.Numeric(-5.5, 5.5)),
        schema.Column("sex", schema.Categorical(("0", "1"))),
        schema.Column("diag", schema.Categorical(("flu", "o'brien", "AND 1=1 --"))),
    ),
)
SCHEMAS = {"patients": PATIENTS}
CATEGORIES = {"sex": ("0", "1"), "diag": ("flu", "o'brien", "AND 1=1 --")}
literals = {
    "age": st.integers(0, 120).map(float) | st.floats(0, 120),
    "date": st.floats(-5.5, 5.5).map(lambda x: x + 0.0),
    **{name: st.sampled_from(values) for name, values in CATEGORIES.items()},
}
columns = st.sampled_from(sorted(literals))


@st.composite
def leaves(draw: st.DrawFn) -> ir.Predicate:
    column = draw(columns)
    operators = ("=", "!=") if column in CATEGORIES else ir.OPERATORS
    match draw(st.integers(0, 3)):
        case 0:
            return ir.IsNull(column)
        case 1:
            return ir.IsIn(column, tuple(draw(st.lists(literals[column], min_size=1, max_size=3, unique=True))))
        case _:
            return ir.Comparison(column, draw(st.sampled_from(operators)), draw(literals[column]))


predicates: st.SearchStrategy[ir.Predicate] = st.recursive(
    leaves(),
    lambda inner: (
        st.builds(ir.Not, inner)
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: ir.AllOf(tuple(parts)))
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: ir.AnyOf(tuple(parts)))
    ),
    max_leaves=8,
)
measures: st.SearchStrategy[tuple[str, Measure]] = st.one_of(
    st.just(("COUNT(*)", ir.Count())),
    columns.map(lambda c: (f"COUNT({c})", _[c].count())),
    st.sampled_from(("age", "date")).flatmap(
        lambda c: st.sampled_from(
            (
                (f"SUM({c})", _[c].sum()),
                (f"avg( {c} )", _[c].mean()),
                (f"VAR_POP({c})", _[c].var(ddof=0)),
                (f"VARIANCE({c})", _[c].var()),
                (f"var_samp({c})", _[c].var()),
                (f"STDDEV({c})", _[c].std()),
                (f"Stddev_Samp({c})", _[c].std()),
                (f"STDDEV_POP({c})", _[c].std(ddof=0)),
            )
        )
    ),
    st.integers(1, 50).map(lambda bins: (f"HISTOGRAM(age, {bins})", _.age.histogram(bins=bins))),
    st.sampled_from(sorted(CATEGORIES)).map(lambda c: (f"HISTOGRAM({c})", _[c].histogram())),
)


def condition(node: ir.Predicate) -> Condition:
    """Say a predicate in the expression API."""
    match node:
        case ir.Comparison(column, operator, value):
            ref: Any = _[column]
            return {  # type: ignore[no-any-return]  # each operator of a column makes a Condition
                "=": ref.__eq__, "!=": ref.__ne__, "<": ref.__lt__, "<=": ref.__le__, ">": ref.__gt__, ">=": ref.__ge__,
            }[operator](value)  # fmt: skip
        case ir.IsIn(column, values):
            return _[column].isin(values)
        case ir.IsNull(column):
            return _[column].isnull()
        case ir.AllOf(parts):
            return reduce(and_, map(condition, parts))
        case ir.AnyOf(parts):
            return reduce(or_, map(condition, parts))
        case ir.Not(part):
            return ~condition(part)


FLIPPED = {"=": "=", "!=": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
BINDING = {ir.AnyOf: 1, ir.AllOf: 2, ir.Not: 3}


def render(node: ir.Predicate, chance: random.Random, outer: int = 0) -> str:
    """Say a predicate in SQL, with no more parentheses than precedence asks for, or with some for free."""
    match node:
        case ir.Comparison(column, operator, value):
            text = (
                f"{spell(value)} {FLIPPED[operator]} {column}"
                if chance.random() < 0.3
                else f"{column} {operator} {spell(value)}"
            )
        case ir.IsIn(column, values):
            text = f"{column} IN ({', '.join(map(spell, values))})"
        case ir.IsNull(column):
            text = f"{column} IS NULL"
        case ir.Not(ir.IsNull(column)) if chance.random() < 0.5:
            return f"{column} IS NOT NULL"
        case ir.Not(ir.IsIn(column, values)) if chance.random() < 0.5:
            return f"{column} NOT IN ({', '.join(map(spell, values))})"
        case ir.Not(part):
            text = f"NOT {render(part, chance, 3)}"
        case ir.AllOf(parts):
            text = " AND ".join(render(part, chance, 2) for part in parts)
        case ir.AnyOf(parts):
            text = " or\n ".join(render(part, chance, 1) for part in parts)
    binding = BINDING.get(type(node), 4)
    return f"({text})" if binding < outer or chance.random() < 0.15 else text


def spell(value: ir.Scalar) -> str:
    return repr(value) if isinstance(value, float) else "'" + value.replace("'", "''") + "'"


@settings(max_examples=200)
@given(
    st.lists(measures, min_size=1, max_size=4),
    st.none() | predicates,
    st.lists(st.sampled_from(sorted(CATEGORIES)), unique=True),
    st.randoms(use_true_random=False),
)
def test_the_same_question_is_the_same_query_in_sql_and_in_python(
    asked: list[tuple[str, Measure]], where: ir.Predicate | None, keys: list[str], chance: random.Random
) -> None:
    table = Table(PATIENTS) if where is None else Table(PATIENTS).filter(condition(where))
    built = table.group_by(*keys).agg(**{f"out_{i}": measure for i, (_text, measure) in enumerate(asked)}).build()
    text = "SELECT " + ", ".join((*keys, *(f"{text} AS out_{i}" for i, (text, _measure) in enumerate(asked))))
    text += " FROM patients"
    text += "" if where is None else f" WHERE {render(where, chance)}"
    text += f" GROUP BY {', '.join(keys)};" if keys else ""
    parsed = sql.parse(text, SCHEMAS)
    assert parsed == built
    assert parsed == resolve(parsed, PATIENTS)
    assert decode_query(encode_query(parsed)) == parsed


def truth(node: ir.Predicate, row: dict[str, Any]) -> bool | None:
    """Judge a predicate under SQL's three-valued logic."""
    match node:
        case ir.Comparison(column, operator, value):
            held = row[column]
            return None if held is None else COMPARE[operator](held, value)
        case ir.IsIn(column, values):
            return None if row[column] is None else row[column] in values
        case ir.IsNull(column):
            return row[column] is None
        case ir.Not(part):
            inner = truth(part, row)
            return None if inner is None else not inner
        case ir.AllOf(parts) | ir.AnyOf(parts):
            decisive = isinstance(node, ir.AnyOf)
            judged = [truth(part, row) for part in parts]
            return decisive if decisive in judged else None if None in judged else not decisive


COMPARE = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip
ROWS = [
    {"age": age, "date": date, "sex": sex, "diag": diag}
    for age in (None, 0.0, 40.0, 120.0)
    for date in (None, -5.5, 0.0, 1.25)
    for sex in (None, "0", "1")
    for diag in (None, *CATEGORIES["diag"])
]


@pytest.fixture(scope="module")
def engine() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE patients (row INTEGER, age DOUBLE, date DOUBLE, sex VARCHAR, diag VARCHAR)")
    connection.executemany(
        "INSERT INTO patients VALUES (?, ?, ?, ?, ?)", [(i, *row.values()) for i, row in enumerate(ROWS)]
    )
    return connection


@settings(max_examples=200)
@given(predicates, st.randoms(use_true_random=False))
def test_conditions_select_the_rows_that_duckdb_selects(
    engine: duckdb.DuckDBPyConnection, where: ir.Predicate, chance: random.Random
) -> None:
    text = render(where, chance)
    parsed = sql.parse(f"SELECT COUNT(*) FROM patients WHERE {text}", SCHEMAS).where
    assert parsed is not None
    selected = {row[0] for row in engine.execute(f"SELECT row FROM patients WHERE {text}").fetchall()}
    assert {i for i, row in enumerate(ROWS) if truth(parsed, row)} == selected


WORDS = [*sql.FUNCTIONS, "COUNT(*)", "COUNT(", "AVG(", "HISTOGRAM(", "SELECT", "FROM", "WHERE", "GROUP BY", "AS", "AND"]
WORDS += [
    "OR",
    "NOT",
    "IN",
    "BETWEEN",
    "IS",
    "NULL",
    "JOIN",
    "LIMIT",
    "age",
    "date",
    "sex",
    "diag",
    "patients",
    '"age"',
]
WORDS += [
    "patient_id",
    "0",
    "1",
    "40",
    "1e3",
    ".5",
    "'0'",
    "'flu'",
    "é",
    "$1",
    "\n",
    "--",
    "/*",
    "'",
    '"',
    ";",
    *"=<>(),.-+*",
]


@settings(max_examples=400)
@given(
    st.sampled_from(("", "SELECT ", "SELECT COUNT(*) FROM patients ", "SELECT COUNT(*) FROM patients WHERE age ")),
    st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=30),
)
def test_any_text_is_a_query_that_duckdb_reads_alike_or_an_error_of_the_tree(
    engine: duckdb.DuckDBPyConnection, start: str, rest: str
) -> None:
    try:
        parsed = sql.parse(start + rest, SCHEMAS)
    except QueryError:
        return
    assert resolve(parsed, PATIENTS) == parsed
    if parsed.where is not None and not parsed.keys and [a.aggregate for a in parsed.aggregates] == [ir.Count()]:
        expected = sum(bool(truth(parsed.where, row)) for row in ROWS)
        assert engine.execute(start + rest).fetchall() == [(expected,)]


@given(st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_raw_characters_are_an_error_of_the_tree(text: str) -> None:
    with pytest.raises(CohortiumError):
        sql.parse(text, SCHEMAS)

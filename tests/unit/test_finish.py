"""HAVING, ORDER BY and LIMIT act on the noisy answer, and are checked before anything is paid for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from queries import sql
from queries.errors import QueryError, SqlError, UnknownName
from queries.estimate import Table, estimate
from queries.noise import NoiseShape
from queries.plan import make_plan
from queries.schema import Categorical, Column, Dataset, Numeric

DATASET = Dataset(
    "patients",
    (
        Column("age", Numeric(0, 120)),
        Column("diag", Categorical(("a", "b", "c", "d")), nullable=False),
    ),
)
SILENT = NoiseShape(0, Fraction(0), Fraction(0))
COUNTS = {"a": 5, "b": 40, "c": 7, "d": 40}


def answer(rest: str, select: str = "COUNT(*) AS n") -> Table:
    asked = sql.ask(f"SELECT diag, {select} FROM patients GROUP BY diag {rest}", {"patients": DATASET})
    plan = make_plan(asked.query, DATASET)
    sums = np.array(list(COUNTS.values())) << plan.scale_bits
    return asked.finish(estimate(plan, sums, SILENT, 3))


def kept(rest: str, select: str = "COUNT(*) AS n") -> str:
    table = answer(rest, select)
    assert [COUNTS[keys[0]] for keys in table.row_keys] == table.outputs[0].value.tolist()
    assert len(table.rows) == len(table.row_keys)
    return "".join(keys[0] for keys in table.row_keys)


@pytest.mark.parametrize(
    ("rest", "rows"),
    [
        ("", "abcd"),
        ("HAVING n > 6", "bcd"),
        ("HAVING 6 < COUNT(*)", "bcd"),
        ("HAVING n BETWEEN 6 AND 10 OR diag = 'a'", "ac"),
        ("HAVING NOT (n = 40) AND diag IN ('c', 'd')", "c"),
        ("HAVING diag <> 'b' AND n >= 7", "cd"),
        ("HAVING n > 1000", ""),
        ("ORDER BY n", "acbd"),
        ("ORDER BY n DESC", "bdca"),
        ("ORDER BY n DESC, diag DESC", "dbca"),
        ("ORDER BY COUNT(*) ASC, diag DESC LIMIT 3", "acd"),
        ("HAVING n > 6 ORDER BY diag DESC LIMIT 1", "d"),
        ("LIMIT 0", ""),
    ],
)
def test_rows_are_kept_sorted_and_cut(rest: str, rows: str) -> None:
    assert kept(rest) == rows


def test_the_query_that_is_asked_does_not_change() -> None:
    plain, finished = (
        sql.parse(f"SELECT COUNT(*) FROM patients GROUP BY diag {rest}", {"patients": DATASET})
        for rest in ("", "HAVING COUNT(*) > 5 ORDER BY diag LIMIT 2")
    )
    assert plain == finished


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("HAVING AVG(age) > 5", "not among the outputs"),
        ("HAVING n > 'a'", "cannot be compared"),
        ("HAVING diag > 5", "cannot be compared"),
        ("HAVING n > diag", "a literal is expected"),
        ("HAVING n IS NULL", "no condition on outputs"),
        ("HAVING n", "no condition on outputs"),
        ("ORDER BY h", "several numbers a row"),
        ("ORDER BY HISTOGRAM(age, 3)", "several numbers a row"),
        ("ORDER BY age + 1", "a key or an output"),
        ("LIMIT 1e3", "a whole number"),
    ],
)
def test_what_cannot_be_done_afterwards_is_refused_before(rest: str, words: str) -> None:
    with pytest.raises((SqlError, QueryError), match=words):
        answer(rest, "COUNT(*) AS n, HISTOGRAM(age, 3) AS h")


def test_an_unknown_output_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'total'"):
        answer("HAVING totl > 5", "COUNT(*) AS total")


def test_groups_by_a_value_can_be_sorted_by_it() -> None:
    text = "SELECT CASE WHEN age < 9 THEN 'x' ELSE 'y' END AS band, COUNT(*) FROM patients GROUP BY band"
    asked = sql.ask(f"{text} ORDER BY band DESC", {"patients": DATASET})
    plan = make_plan(asked.query, DATASET)
    table = asked.finish(estimate(plan, np.array([3, 4]), SILENT, 3))
    assert [row.keys for row in table.rows] == [("y",), ("x",)]

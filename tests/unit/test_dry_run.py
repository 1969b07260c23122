"""Answers from invented rows: of the right shape, in the published ranges, and never to be taken for real ones."""

from __future__ import annotations

import json

import pytest

from analytics_client.dry_run import dry_run
from analytics_client.explain import cost_of
from analytics_client.result import Result
from queries.errors import QueryError
from queries.plan import make_plan
from queries.schema import from_toml
from queries.sql import parse

DATASET = from_toml("""
name = "patients"
privacy_unit = "id"
max_rows = 3
max_persons = 100000
[columns.age]
type = "integer"
lower = 0
upper = 100
[columns.sex]
type = "category"
categories = ["female", "male"]
nullable = false
[columns.bmi]
type = "number"
lower = 10
upper = 60
""")
RHO_NANO = 10**9


def answered(sql: str, *, rows: int = 2000, seed: int = 1, institutions: int = 5) -> Result:
    plan = make_plan(parse(sql, {"patients": DATASET}), DATASET)
    cost = cost_of(RHO_NANO, DATASET.delta)
    return dry_run(plan, cost, RHO_NANO, institutions=institutions, colluders=1, rows=rows, seed=seed)


def test_a_mock_answer_has_the_shape_of_a_real_one_and_says_that_it_is_none() -> None:
    result = answered("SELECT sex, COUNT(*) AS n, AVG(age) AS age FROM patients GROUP BY sex")
    assert [row.keys for row in result.rows] == [("female",), ("male",)]
    assert result.mock
    assert "MOCK" in str(result)
    assert "MOCK" in result._repr_html_()
    assert json.loads(result.to_json())["mock"] is True
    assert "nothing was spent" in str(result)


def test_invented_rows_lie_in_the_published_ranges_and_some_are_missing() -> None:
    result = answered("SELECT COUNT(*) AS n, COUNT(bmi) AS given, AVG(bmi) AS bmi FROM patients", rows=20_000)
    n, given, bmi = (result.estimate(name).value for name in ("n", "given", "bmi"))
    assert 0.8 * n < given < 0.95 * n
    assert 33 < bmi < 37


def test_the_same_seed_invents_the_same_rows_under_fresh_noise() -> None:
    sql = "SELECT COUNT(*) AS n FROM patients WHERE age < 50"
    one, again, other = answered(sql, seed=1), answered(sql, seed=1), answered(sql, seed=2)
    assert one.estimate("n").value != again.estimate("n").value  # noise
    assert one.estimate("n").value == pytest.approx(again.estimate("n").value, abs=30)
    assert other.dataset == "patients"


@pytest.mark.parametrize("rows", [0, 4, 2_000_000])
def test_an_impossible_number_of_rows_is_refused(rows: int) -> None:
    with pytest.raises(QueryError, match="a dry run takes between 5 and 1,000,000 rows"):
        answered("SELECT COUNT(*) AS n FROM patients", rows=rows)

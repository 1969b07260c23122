"""An explanation tells, from public values alone, what a question discloses, costs and is worth."""

from __future__ import annotations

import json
from math import sqrt

import pytest

from analytics_client.explain import Explanation, explain
from queries import schema
from queries.accounting import epsilon_to_rho_nano
from queries.errors import QueryError, QuorumError
from queries.plan import make_plan
from queries.sql import parse

PATIENTS = schema.from_toml("""
name = "patients"
privacy_unit = "id"
max_rows = 4
[columns.age]
type = "integer"
lower = 0
upper = 100
nullable = false
[columns.sex]
type = "category"
categories = ["female", "male"]
""")
FOUR = ("a", "b", "c", "d")


def _explain(sql: str, epsilon: float = 1.0, institutions: tuple[str, ...] = FOUR) -> Explanation:
    plan = make_plan(parse(sql, {"patients": PATIENTS}), PATIENTS)
    return explain(plan, epsilon_to_rho_nano(epsilon, PATIENTS.delta), institutions=institutions, colluders=1)


COUNT = _explain("SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex")


def test_a_count_is_explained_as_by_hand() -> None:
    assert COUNT.sensitivity == 4  # four rows of one person, in one cell
    sigma = 4 / sqrt(2 * COUNT.cost.rho)
    assert COUNT.noise_of_curator == pytest.approx(sigma)
    assert COUNT.noise_per_institution == pytest.approx(sigma / sqrt(2))  # t - c = 3 - 1
    assert COUNT.noise_total == pytest.approx(sigma * sqrt(4 / 3))  # n / (n - c)
    assert COUNT.noise_fewest == pytest.approx(sigma * sqrt(3 / 2))
    assert COUNT.widths[0].half_width == pytest.approx(1.959964 * COUNT.noise_total)
    assert COUNT.cost.epsilon == pytest.approx(1, rel=1e-6)


def test_the_epsilon_for_a_width_gives_that_width() -> None:
    needed = COUNT.epsilon_for("n", 5.0)
    again = _explain("SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex", needed)
    assert again.widths[0].half_width == pytest.approx(5.0, rel=1e-3)


@pytest.mark.parametrize(("output", "width"), [("m", 0.5), ("q", 2.0), ("s", 1.0), ("k", 3.0)])
def test_the_epsilon_for_a_width_is_searched_where_no_formula_gives_it(output: str, width: float) -> None:
    """And a little less is not enough."""
    asked = "SELECT AVG(age) AS m, MEDIAN(age) AS q, STDDEV(age) AS s, KURTOSIS(age) AS k FROM patients"
    needed = _explain(asked).epsilon_for(output, width)
    for epsilon, enough in ((needed * 1.001, True), (needed * 0.9, False)):
        widths = {each.name: each.half_width for each in _explain(asked, epsilon).widths}
        assert (widths[output] <= width) == enough


@pytest.mark.parametrize(
    ("output", "width"), [("age", 1e-9), ("nothing", 1.0), ("n", 0.0), ("n", float("nan")), ("n", 1e-9)]
)
def test_a_width_that_no_epsilon_gives_is_refused(output: str, width: float) -> None:
    explanation = _explain("SELECT COUNT(*) AS n, AVG(age) AS age FROM patients")
    with pytest.raises(QueryError):
        explanation.epsilon_for(output, width)


def test_the_text_names_who_is_asked_and_what_it_costs() -> None:
    text = str(_explain("SELECT sex, COUNT(*) AS n, AVG(age) AS age FROM patients GROUP BY sex"))
    for part in ("4 numbers: 2 cells of 2 (rows, linear)", "a, b, c, d", "epsilon 1 ", "for a group of 1,000 rows"):
        assert part in text


def test_json_is_complete_and_exact() -> None:
    read = json.loads(COUNT.to_json())
    assert read["cells"] == 2
    assert read["length"] == 2
    assert read["delta_squared"] == "16"
    assert read["institutions"] == list(FOUR)
    assert read["threshold"] == 3


def test_fewer_than_three_institutions_are_too_few() -> None:
    with pytest.raises(QuorumError, match="only 2 institutions serve 'patients'"):
        _explain("SELECT COUNT(*) AS n FROM patients", institutions=("a", "b"))

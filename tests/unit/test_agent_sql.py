"""What runs on a hospital's database, statement by statement: a change shows as a changed snapshot in review.

Rewrite the snapshots with: UPDATE_SNAPSHOTS=1 pytest tests/unit/test_agent_sql.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

from analytics_client.agent.sources import sql, terms
from queries import ir, schema
from queries.plan import Plan, make_plan

SNAPSHOTS = Path(__file__).parent / "snapshots"
DATASET = schema.from_toml("""
name = "patients"
privacy_unit = "patient_id"
max_rows = 3
[columns]
age  = { type = "integer", lower = 0, upper = 120, nullable = false }
chol = { type = "number", lower = -0.5, upper = 600.7 }
sex  = { type = "category", categories = ["female", "male"] }
cp   = { type = "category", categories = ["1", "2", "3"], other = true }
""")
ONE_ROW = schema.from_toml("""
name = "patients"
[columns]
age  = { type = "integer", lower = 0, upper = 120 }
""")


def named(*aggregates: ir.Aggregate) -> tuple[ir.NamedAggregate, ...]:
    return tuple(ir.NamedAggregate(f"o{number}", aggregate) for number, aggregate in enumerate(aggregates))


WHERE = ir.AllOf(
    (
        ir.Comparison("age", ">=", 18.0),
        ir.AnyOf((ir.Comparison("sex", "=", "male"), ir.Not(ir.IsIn("cp", ("1", "other"))))),
        ir.Not(ir.IsNull("chol")),
    )
)
PLANS = {
    "count": make_plan(ir.Query("patients", named(ir.Count())), DATASET),
    "no_privacy_unit": make_plan(ir.Query("patients", named(ir.Count(), ir.Stddev("age"))), ONE_ROW),
    "moments_where_group": make_plan(
        ir.Query("patients", named(ir.Count(), ir.Mean("age"), ir.Stddev("chol")), where=WHERE, keys=(ir.Key("sex"),)),
        DATASET,
    ),
    "histograms_two_keys": make_plan(
        ir.Query(
            "patients",
            named(ir.Histogram("chol", (0.0, 150.0, 240.0, 600.0)), ir.Histogram("cp"), ir.Count("chol")),
            keys=(ir.Key("sex", ("male",)), ir.Key("cp", ("3", "1"))),
            rows_per_person=1,
        ),
        DATASET,
    ),
    "persons_quantiles_shape": make_plan(
        ir.Query(
            "patients",
            named(ir.Persons(), ir.Quantile("age", 0.5), ir.Skewness("chol"), ir.Kurtosis("age")),
            where=ir.Comparison("chol", ">", 100.0),
        ),
        DATASET,
    ),
    "derived": make_plan(
        ir.Query(
            "patients",
            named(ir.Mean("ratio"), ir.Stddev("level"), ir.Sum("truth")),
            where=ir.Comparison("ratio", "<", 4.0),
            keys=(ir.Key("band"),),
            derived=(
                ir.Derived("ratio", ir.Bounded(ir.Arithmetic("/", ir.Value("chol"), ir.Value("age")), 0.0, 5.0)),
                ir.Derived("level", ir.Bounded(ir.Function("ln", ir.Value("chol")), -1.0, 7.0)),
                ir.Derived("truth", ir.Truth(ir.Comparison("sex", "=", "male"))),
                ir.Derived(
                    "band",
                    ir.Case((ir.Branch(ir.Comparison("ratio", ">", 1.0), ir.Constant("high")),), ir.Constant("low")),
                ),
            ),
        ),
        DATASET,
    ),
    "models": make_plan(
        ir.Query(
            "patients",
            named(
                ir.LinearModel("chol", ("age", "sex")),
                ir.GroupTest("welch", "chol", "cp", ("2", "other")),
                ir.LogRank("chol", "cp", "1", "sex", (0.0, 150.0, 240.0, 600.0)),
                ir.IndependenceTest("sex", "cp"),
            ),
        ),
        DATASET,
    ),
}


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@pytest.mark.parametrize("name", sorted(PLANS))
def test_statements_are_the_reviewed_ones(name: str, dialect: terms.Dialect) -> None:
    file = SNAPSHOTS / f"agent_{name}.{dialect}.sql"
    text = sql.statement(PLANS[name], dialect).sql(dialect=dialect, pretty=True) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("name", sorted(PLANS))
def test_a_statement_reads_one_table_and_takes_the_salt_as_its_only_parameter(name: str) -> None:
    for rows_known in (True, False):
        text = sql.render(PLANS[name], "duckdb", rows_known=rows_known)
        tree = sqlglot.parse_one(text, dialect="duckdb")
        steps = {cte.alias for cte in tree.find_all(exp.CTE)}
        assert {table.name for table in tree.find_all(exp.Table)} - steps == {sql.TABLE}
        assert len(list(tree.find_all(exp.Placeholder))) == sql.needs_salt(PLANS[name])


@settings(deadline=None)  # the first example parses with everything cold
@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    others=st.lists(st.floats(-0.5, 600.7), min_size=1, max_size=5),
)
def test_a_float_reads_back_as_itself(value: float, others: list[float]) -> None:
    literal = sqlglot.parse_one(terms.double(value).sql(dialect="duckdb"), dialect="duckdb")
    number = literal.find(exp.Literal)
    assert number is not None
    sign = -1 if literal.find(exp.Neg) else 1
    assert sign * float(number.this) == value
    plan: Plan = make_plan(ir.Query("patients", named(ir.Count()), where=ir.IsIn("chol", tuple(others))), DATASET)
    assert sql.render(plan, "duckdb").count("DOUBLE") == len(dict.fromkeys(v + 0.0 for v in others))

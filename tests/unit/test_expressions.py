"""Derived values: bounds by interval arithmetic, one name and one normal form whichever way they were asked for."""

from __future__ import annotations

import math

import pytest
from harness.nodes import evaluate, expressions
from hypothesis import given, settings
from hypothesis import strategies as st

from queries import ir
from queries.builder import ColumnRef, Table, _, case, count
from queries.errors import QueryError, UnknownName
from queries.expressions import LARGEST, range_of
from queries.plan import make_plan
from queries.resolve import columns_used, operations_used, resolve, shape
from queries.schema import Categorical, Column, Dataset, Numeric

DATASET = Dataset(
    "patients",
    (
        Column("weight", Numeric(2, 300), nullable=False),
        Column("height", Numeric(0.4, 2.5)),
        Column("crp", Numeric(0, 500)),
        Column("change", Numeric(-10, 10, integer=True)),
        Column("sex", Categorical(("f", "m"))),
    ),
    "person",
    max_rows=3,
)
PATIENTS = Table(DATASET)


def bounds(value: ColumnRef) -> tuple[float, float]:
    plan = make_plan(PATIENTS.agg(out=value.mean()).build(), DATASET)
    kind = plan.dataset.columns[-1].kind
    assert isinstance(kind, Numeric)
    return kind.lower, kind.upper


def test_bounds_follow_from_those_of_the_columns() -> None:
    assert bounds(_.weight / (_.height * _.height)) == (2 / (2.5 * 2.5), 300 / (0.4 * 0.4))
    assert bounds(_.weight - 2 * _.height) == (2 - 5.0, 300 - 0.8)
    assert bounds(-_.change) == (-10, 10)
    assert bounds(_.change**2) == (0, 100)
    assert bounds(abs(_.change)) == (0, 10)
    assert bounds(_.height.log()) == (math.log(0.4), math.log(2.5))
    assert bounds(_.crp.sqrt()) == (0, math.sqrt(500))
    assert bounds((_.crp + 1).log()) == (0, math.log(501))
    assert bounds((_.weight / _.crp).clip(0, 40)) == (0, 40)
    assert bounds(_.crp.log().clip(-5, 7)) == (-5, math.log(500))
    assert bounds(case((_.change > 0, _.weight), otherwise=-1)) == (-1, 300)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (_.weight / _.crp, "bounds of an expression are unknown"),
        (_.crp.log(), "bounds of an expression are unknown"),
        (1 / (_.crp.log()), "bounds of an expression are unknown"),
        (_.weight * 1e139 * 1e139, "may be larger"),
        (_.weight * 0, "the same for every row"),
        ((-_.weight).sqrt(), "always missing"),
        (_.sex + 1, "categorical"),
        (_.weight.clip(3, 3), "do not ascend"),
        (case((_.weight > 5, "a"), otherwise=1.0), "partly text"),
        (case((_.weight > 5, "other")), "reserved"),
    ],
)
def test_what_has_no_bounds_or_meaning_is_refused_with_a_way_out(value: ColumnRef, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        PATIENTS.agg(out=value.mean()).build()


def test_an_unknown_column_inside_of_an_expression_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="weight"):
        PATIENTS.agg(out=(_.wieght / 2).mean()).build()


def test_equal_questions_are_equal_and_names_hold_no_literals() -> None:
    bmi = _.weight / (_.height * _.height)
    one = PATIENTS.filter(bmi > 30).agg(a=bmi.mean(), b=bmi.std(), c=(_.weight > 77).mean(), d=(_.weight > 99).mean())
    query = one.build()
    assert [each.name for each in query.derived] == ["weight_per_height_by_height", "where_weight", "where_weight_2"]
    assert query == one.build() == resolve(query, DATASET)
    assert "77" not in shape(query)
    assert columns_used(query) == {"weight", "height"}
    assert operations_used(query) == {"mean", "stddev", "where", "derive"}


def test_a_condition_inside_of_an_expression_needs_leave_to_ask_conditions() -> None:
    assert "where" in operations_used(PATIENTS.agg(out=(_.sex == "f").mean()).build())
    assert "where" not in operations_used(PATIENTS.agg(out=(_.crp + 1).mean()).build())


def test_named_values_build_on_each_other_and_unused_ones_vanish() -> None:
    table = PATIENTS.derive(bmi=_.weight / _.height**2).derive(
        band=case((_.bmi < 25, "low"), otherwise="high"), no=_.crp + 1
    )
    query = table.group_by(_.band).agg(n=count(), bmi_mean=_.bmi.mean()).build()
    assert [each.name for each in query.derived] == ["bmi", "band"]
    assert query.keys == (ir.Key("band", ("low", "high")),)
    with pytest.raises(QueryError, match="name of a column"):
        PATIENTS.derive(crp=_.weight + 1).agg(n=_.crp.mean()).build()


def test_expressions_have_caps() -> None:
    value = _.weight + 0
    for number in range(1, 23):
        value = value + number
    PATIENTS.agg(out=value.mean()).build()
    with pytest.raises(QueryError, match="nested more than 24"):
        value + 1
    condition = _.weight > 5
    for _number in range(10):
        condition = ~condition
    with pytest.raises(QueryError, match="nested more than 8"):
        condition.mean()


@given(
    expressions(["weight", "height", "crp", "change"]),
    st.fixed_dictionaries(
        {
            "weight": st.floats(2, 300),
            "height": st.floats(0.4, 2.5),
            "crp": st.sampled_from([0.0, 1e-300, 500.0]) | st.floats(0, 500),
            "change": st.integers(-10, 10).map(float),
        }
    ),
)
@settings(max_examples=500, deadline=None)
def test_no_value_leaves_its_propagated_bounds(expression: ir.Expression, row: dict[str, float]) -> None:
    try:
        found = range_of(expression, DATASET)
    except QueryError:
        return
    value = evaluate(expression, row, lambda _predicate: None)
    if value is None:
        assert found.nullable
        return
    slack = 1e-9 * max(1.0, abs(value))  # the logarithm of two libraries may differ in the last bit
    assert found.lower - slack <= value <= found.upper + slack
    assert not found.finite or abs(value) <= LARGEST * 1e10
    assert not found.integer or value == math.floor(value)

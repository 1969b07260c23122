"""The gate: names, literals and caps are judged alike for client, coordinator and agent."""

from __future__ import annotations

import math

import pytest

from queries import ir, limits, schema
from queries.errors import LiteralError, QueryError, UnknownName
from queries.resolve import columns_used, equal_width, literal, operations_used, resolve, shape

PATIENTS = schema.Dataset(
    name="patients",
    privacy_unit="patient_id",
    max_rows=5,
    columns=(
        schema.Column("age", schema.Numeric(0, 120, integer=True), nullable=False),
        schema.Column("bmi", schema.Numeric(-10, 60)),
        schema.Column("sex", schema.Categorical(("0", "1"))),
        schema.Column("diag", schema.Categorical(("flu", "cold", "measles"), other=True)),
    ),
)
COUNT = (ir.NamedAggregate("n", ir.Count()),)


def ask(*aggregates: ir.Aggregate, where: ir.Predicate | None = None, keys: tuple[ir.Key, ...] = ()) -> ir.Query:
    named = tuple(ir.NamedAggregate(f"out_{i}", aggregate) for i, aggregate in enumerate(aggregates))
    return resolve(ir.Query("patients", named or COUNT, where, keys), PATIENTS)


def test_keys_are_written_out_in_published_order_with_other_last() -> None:
    assert ask(keys=(ir.Key("diag"),)).keys == (ir.Key("diag", ("flu", "cold", "measles", "other")),)
    assert ask(keys=(ir.Key("diag", ("other", "flu")),)).keys == (ir.Key("diag", ("flu", "other")),)
    assert ask(keys=(ir.Key("sex"),)).keys == (ir.Key("sex", ("0", "1")),)


def test_conditions_are_flattened_and_numbers_that_name_a_category_become_it() -> None:
    old, heavy = ir.Comparison("age", ">", 65), ir.Comparison("bmi", ">", 30.0)
    nested = ir.AllOf((ir.AllOf((old, heavy)), ir.AllOf((ir.AnyOf((ir.Comparison("sex", "=", 1),)),))))
    assert ask(where=nested).where == ir.AllOf((old, heavy, ir.Comparison("sex", "=", "1")))


def test_resolving_again_changes_nothing() -> None:
    once = ask(ir.Histogram("bmi", (-10, 0, 60)), where=ir.IsIn("age", (1, 1, 2)), keys=(ir.Key("diag", ("flu",)),))
    assert resolve(once, PATIENTS) == once
    assert isinstance(once.where, ir.IsIn)
    assert once.where.values == (1.0, 2.0)


def test_minus_zero_is_zero() -> None:
    resolved = ask(where=ir.Comparison("bmi", "=", -0.0)).where
    assert isinstance(resolved, ir.Comparison)
    assert isinstance(resolved.value, float)
    assert math.copysign(1, resolved.value) == 1


@pytest.mark.parametrize("value", [-1, 121, 120.001, math.nan, math.inf, -math.inf, 10**400, True, "40", None])
def test_a_literal_outside_the_bounds_or_of_the_wrong_kind_is_refused(value: object) -> None:
    with pytest.raises(LiteralError):
        literal(PATIENTS.column("age"), value)


def test_the_bounds_themselves_are_inside() -> None:
    assert literal(PATIENTS.column("age"), 0) == 0.0
    assert literal(PATIENTS.column("age"), 120) == 120.0


def test_a_literal_error_states_the_bounds_and_never_the_literal() -> None:
    with pytest.raises(LiteralError, match="age lies between 0 and 120") as caught:
        ask(where=ir.Comparison("age", "=", 777.25))
    assert "777" not in str(caught.value)
    with pytest.raises(LiteralError, match="did you mean 'measles'") as caught:
        ask(where=ir.IsIn("diag", ("flu", "measels")))
    assert "measels" not in str(caught.value)
    with pytest.raises(LiteralError, match="published: '0', '1'"):
        ask(where=ir.Comparison("sex", "!=", 2))


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'age'"):
        ask(ir.Mean("aged"))
    with pytest.raises(UnknownName, match="did you mean 'diag'"):
        ask(where=ir.AnyOf((ir.IsNull("diagg"), ir.IsNull("age"))))
    with pytest.raises(UnknownName, match="did you mean 'patients'"):
        resolve(ir.Query("patient", COUNT), PATIENTS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ask(ir.Count("patient_id")),
        lambda: ask(where=ir.Comparison("patient_id", "=", "p1")),
        lambda: ask(keys=(ir.Key("patient_id"),)),
    ],
)
def test_the_privacy_unit_cannot_be_asked_about(make: object) -> None:
    with pytest.raises(QueryError, match="names the person"):
        make()  # type: ignore[operator]  # a parameter has no type


@pytest.mark.parametrize("aggregate", [ir.Sum("sex"), ir.Mean("sex"), ir.Variance("sex"), ir.Stddev("diag")])
def test_categories_have_no_moments(aggregate: ir.Aggregate) -> None:
    with pytest.raises(QueryError, match="categorical"):
        ask(aggregate)


def test_numbers_are_no_keys() -> None:
    with pytest.raises(QueryError, match="no published keys to group by"):
        ask(keys=(ir.Key("age"),))


@pytest.mark.parametrize("operator", ["<", "<=", ">", ">="])
def test_categories_have_no_order(operator: ir.Operator) -> None:
    with pytest.raises(QueryError, match="no order"):
        ask(where=ir.Comparison("diag", operator, "flu"))


@pytest.mark.parametrize(
    "edges",
    [(), (0.0,), (0.0, 0.0), (5.0, 1.0), (0.0, math.nan, 5.0), (0.0, math.inf), (-1.0, 5.0), (0.0, 121.0)],
)
def test_histogram_edges_ascend_inside_the_bounds(edges: tuple[float, ...]) -> None:
    with pytest.raises(QueryError):
        ask(ir.Histogram("age", edges))


def test_a_categorical_histogram_takes_no_edges() -> None:
    assert ask(ir.Histogram("diag")).aggregates[0].aggregate == ir.Histogram("diag")
    with pytest.raises(QueryError, match="one bin a category"):
        ask(ir.Histogram("diag", (0.0, 1.0)))


def test_equal_width_bins_start_and_end_at_the_bounds() -> None:
    assert equal_width(PATIENTS.column("age"), 4) == (0.0, 30.0, 60.0, 90.0, 120.0)
    assert equal_width(PATIENTS.column("bmi"), 1) == (-10.0, 60.0)
    wide = equal_width(PATIENTS.column("bmi"), limits.MAX_BINS)
    assert (len(wide), wide[0], wide[-1]) == (limits.MAX_BINS + 1, -10.0, 60.0)


@pytest.mark.parametrize("bins", [0, -1, 10_001, 2.5, True])
def test_an_impossible_number_of_bins_is_refused(bins: int) -> None:
    with pytest.raises(QueryError, match="number of bins"):
        equal_width(PATIENTS.column("age"), bins)


def test_bins_too_narrow_for_floats_are_refused() -> None:
    narrow = schema.Dataset("d", (schema.Column("x", schema.Numeric(1e16, 1e16 + 4)),))
    edges = equal_width(narrow.column("x"), 100)
    with pytest.raises(QueryError, match="do not ascend"):
        resolve(ir.Query("d", (ir.NamedAggregate("h", ir.Histogram("x", edges)),)), narrow)


@pytest.mark.parametrize("name", ["", "1st", "a b", "a-b", "<b>", "x" * 128, "é"])
def test_an_output_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(QueryError, match="name"):
        resolve(ir.Query("patients", (ir.NamedAggregate(name, ir.Count()),)), PATIENTS)


def test_two_outputs_or_an_output_and_a_key_cannot_share_a_name() -> None:
    with pytest.raises(QueryError, match="two outputs are called 'n'"):
        resolve(ir.Query("patients", COUNT + COUNT), PATIENTS)
    with pytest.raises(QueryError, match="two outputs are called 'sex'"):
        resolve(ir.Query("patients", (ir.NamedAggregate("sex", ir.Count()),), keys=(ir.Key("sex"),)), PATIENTS)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (ir.Query("patients", ()), "asks for nothing"),
        (ir.Query("patients", tuple(ir.NamedAggregate(f"n{i}", ir.Count()) for i in range(65))), "more than 64"),
        (ir.Query("patients", COUNT, keys=(ir.Key("sex"), ir.Key("sex"))), "twice"),
        (ir.Query("patients", COUNT, keys=(ir.Key("sex", ("1", "1")),)), "given twice"),
        (ir.Query("patients", COUNT, keys=(ir.Key("sex", ("2",)),)), "no such category"),
        (ir.Query("patients", COUNT, rows_per_person=0), "rows per person"),
        (ir.Query("patients", COUNT, rows_per_person=6), "rows per person"),
        (ir.Query("patients", COUNT, ir.AllOf(())), "joins no conditions"),
        (ir.Query("patients", COUNT, ir.IsIn("age", ())), "empty list"),
        (ir.Query("patients", (ir.NamedAggregate("v", ir.Variance("age", 2)),)), "ddof"),
        (ir.Query("patients", COUNT, ir.IsIn("age", tuple(range(100)) * 101)), "more than 1,500 parts"),
    ],
)
def test_what_makes_no_sense_or_passes_a_cap_is_refused(query: ir.Query, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        resolve(query, PATIENTS)


def test_an_answer_has_at_most_a_million_numbers() -> None:
    wide = schema.Dataset(
        "d",
        (
            schema.Column("x", schema.Numeric(0, 1)),
            schema.Column("k", schema.Categorical(tuple(f"k{i}" for i in range(100)))),
        ),
    )
    histogram = ir.NamedAggregate("h", ir.Histogram("x", equal_width(wide.column("x"), 10_000)))
    assert resolve(ir.Query("d", (histogram,), keys=(ir.Key("k"),)), wide)
    with pytest.raises(QueryError, match="1,000,100 numbers"):
        resolve(ir.Query("d", (histogram, ir.NamedAggregate("n", ir.Count())), keys=(ir.Key("k"),)), wide)


def test_deep_conditions_are_refused_without_recursion() -> None:
    deep: ir.Predicate = ir.IsNull("age")
    for _ in range(limits.MAX_DEPTH - 1):
        deep = ir.Not(deep)
    assert ask(where=deep).where == deep
    for _ in range(100_000):
        deep = ir.Not(deep)
    with pytest.raises(QueryError, match="nested more than"):
        ask(where=deep)


def test_shape_columns_and_operations_hold_no_literal() -> None:
    query = ask(
        ir.Count(),
        ir.Mean("age"),
        ir.Histogram("bmi", (-10.0, 25.5, 60.0)),
        where=ir.AllOf((ir.Comparison("diag", "=", "flu"), ir.Not(ir.IsIn("age", (41, 42))))),
        keys=(ir.Key("sex"),),
    )
    assert shape(query) == "count(*), mean(age), histogram(bmi) by sex where age, diag"
    assert columns_used(query) == {"age", "bmi", "diag", "sex"}
    assert operations_used(query) == {"count", "mean", "histogram", "group_by", "where"}
    assert shape(ask(ir.Count("bmi"))) == "count(bmi)"
    assert operations_used(ask(ir.Sum("bmi"), ir.Variance("bmi"), ir.Stddev("bmi"))) == {"sum", "variance", "stddev"}

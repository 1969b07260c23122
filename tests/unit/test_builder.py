"""The expression API says the same as the frozen query, and refuses what Python would silently misread."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from queries import ir, schema
from queries.builder import Builder, Table, _, count
from queries.errors import LiteralError, QueryError, UnknownName

PATIENTS = schema.Dataset(
    name="patients",
    privacy_unit="patient_id",
    max_rows=5,
    columns=(
        schema.Column("age", schema.Numeric(0, 120, integer=True)),
        schema.Column("sex", schema.Categorical(("female", "male"))),
        schema.Column("diag", schema.Categorical(("flu", "cold"), other=True)),
        schema.Column("count", schema.Numeric(0, 10)),
    ),
)
PEOPLE = Table(PATIENTS)


def test_a_whole_question() -> None:
    query = PEOPLE.filter(_.age >= 18).group_by(_.sex).agg(n=count(), age=_.age.mean()).build()
    assert query == ir.Query(
        dataset="patients",
        aggregates=(ir.NamedAggregate("n", ir.Count()), ir.NamedAggregate("age", ir.Mean("age"))),
        where=ir.Comparison("age", ">=", 18.0),
        keys=(ir.Key("sex", ("female", "male")),),
    )


def test_every_statistic() -> None:
    query = PEOPLE.agg(
        a=_.age.sum(),
        b=_.age.var(),
        c=_.age.var(ddof=0),
        d=_.age.std(),
        e=_.age.std(ddof=0),
        f=_.age.count(),
        g=_.age.histogram(bins=2),
        h=_.age.histogram(edges=[10, 20, np.float32(40)]),
        i=_.diag.histogram(),
        j=_["count"].mean(),
    ).build()
    assert [named.aggregate for named in query.aggregates] == [
        ir.Sum("age"),
        ir.Variance("age"),
        ir.Variance("age", 0),
        ir.Stddev("age"),
        ir.Stddev("age", 0),
        ir.Count("age"),
        ir.Histogram("age", (0.0, 60.0, 120.0)),
        ir.Histogram("age", (10.0, 20.0, 40.0)),
        ir.Histogram("diag"),
        ir.Mean("count"),
    ]


def test_every_condition() -> None:
    def where(*conditions: object) -> ir.Predicate | None:
        return PEOPLE.filter(*conditions).agg(n=count()).build().where  # type: ignore[arg-type]  # some are wrong

    age = ir.Comparison
    assert where(_.age < 5) == age("age", "<", 5)
    assert where(5 > _.age) == age("age", "<", 5)  # noqa: SIM300  # the flipped form is what is tested
    assert where(_.age != np.int64(5)) == age("age", "!=", 5)
    assert where(_.sex == "male") == age("sex", "=", "male")
    assert where(_.age.between(1, 2)) == ir.AllOf((age("age", ">=", 1), age("age", "<=", 2)))
    assert where(_.sex.isin(["male"])) == ir.IsIn("sex", ("male",))
    assert where(_.sex.isnull()) == ir.IsNull("sex")
    assert where(_.sex.notnull()) == ir.Not(ir.IsNull("sex"))
    assert where(~((_.age < 1) | (_.age > 2) | (_.age == 0))) == ir.Not(
        ir.AnyOf((age("age", "<", 1), age("age", ">", 2), age("age", "=", 0)))
    )
    assert where(_.age > 1, _.age < 3) == where((_.age > 1) & (_.age < 3))
    assert where() is None


def test_filters_add_up_and_nothing_changes_in_place() -> None:
    adults = PEOPLE.filter(_.age >= 18)
    men = adults.filter(_.sex == "male").limit_rows(2)
    assert PEOPLE.where is None
    assert adults.where == ir.Comparison("age", ">=", 18.0)
    assert men.agg(n=count()).build().where == ir.AllOf((adults.where, ir.Comparison("sex", "=", "male")))
    assert (adults.rows_per_person, men.rows_per_person) == (None, 2)
    assert men.agg(n=count()).build().rows_per_person == 2
    assert adults.agg(n=count()).limit_rows(3).build().rows_per_person == 3


def test_keys_may_be_chosen() -> None:
    assert PEOPLE.group_by(_.sex, keys={"sex": ["female"]}).keys == (ir.Key("sex", ("female",)),)
    assert PEOPLE.group_by("sex", ir.Key("diag", ("flu",))).keys == (ir.Key("sex"), ir.Key("diag", ("flu",)))
    with pytest.raises(QueryError, match="not grouped by"):
        PEOPLE.group_by(_.sex, keys={"diag": ["flu"]})
    for nothing in ([], "female"):
        with pytest.raises(QueryError, match="no keys are listed"):
            PEOPLE.group_by(_.sex, keys={"sex": nothing})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: bool(_.age > 3),
        lambda: (_.age > 3) and (_.age < 5),
        lambda: not (_.age > 3),
        lambda: 3 < _.age < 5,
        lambda: _.age in [3, 4],
        lambda: bool(_.age),
        lambda: (_.age > 3) & _.sex,
        lambda: (_.age > 3) | True,
        lambda: PEOPLE.filter(_.age),
        lambda: PEOPLE.filter(True),
        lambda: PEOPLE.agg(n=_.age),
        lambda: PEOPLE.agg(n=count),
        lambda: PEOPLE.agg().build(),
        lambda: _.age.histogram(bins=3, edges=[1, 2]),
    ],
)
def test_what_python_would_misread_is_refused_with_a_hint(wrong: object) -> None:
    with pytest.raises(QueryError) as caught:
        wrong()  # type: ignore[operator]  # a parameter has no type
    assert caught.value.hint or "not both" in caught.value.message


@pytest.mark.parametrize("value", [None, True, object(), [1], _.sex, 10**400, b"x"])
def test_only_numbers_and_text_are_literals(value: object) -> None:
    with pytest.raises(LiteralError):
        _.age == value  # noqa: B015  # the comparison itself raises


def test_a_text_is_no_list_of_values() -> None:
    with pytest.raises(LiteralError, match="not one text"):
        _.sex.isin("male")


def test_build_goes_through_the_gate() -> None:
    with pytest.raises(UnknownName, match="did you mean 'age'"):
        PEOPLE.agg(x=_.aeg.mean()).build()
    with pytest.raises(UnknownName, match="did you mean 'age'"):
        PEOPLE.agg(x=_.aeg.histogram(bins=3)).build()
    with pytest.raises(LiteralError, match="between 0 and 120"):
        PEOPLE.filter(_.age > 200).agg(n=count()).build()
    with pytest.raises(QueryError, match="number of bins"):
        PEOPLE.agg(x=_.age.histogram(bins=0)).build()
    with pytest.raises(QueryError, match="rows per person"):
        PEOPLE.limit_rows(6).agg(n=count()).build()


def test_python_can_probe_the_column_namespace() -> None:
    assert not hasattr(_, "_repr_html_")
    assert not hasattr(_, "__array__")
    with pytest.raises(TypeError):
        hash(_.age)


def test_questions_are_values() -> None:
    first = PEOPLE.filter(_.age > 3).agg(n=count())
    assert first == PEOPLE.filter(_.age > 3).agg(n=count())
    assert isinstance(pickle.loads(pickle.dumps(first)), Builder)  # our own bytes
    with pytest.raises(AttributeError):
        first.keys = ()  # type: ignore[misc]  # it is frozen

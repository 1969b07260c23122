"""Neighbouring data differ by at most the plan's sensitivity, in a real DuckDB, whatever the values and the query."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from harness.nodes import models, statistics
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics_client.agent import config
from analytics_client.agent.sources import open_source
from queries import ir
from queries.plan import Plan, make_plan
from queries.schema import Categorical, Column, Dataset, Numeric

SALT = bytes(range(32))
Rows = Sequence[tuple[str, str, str, str, str]]
HARD = ["", "nan", "inf", "-inf", "1e308", "-1e308", "5e-324", "0", "-0.0", "9007199254740993", "1e400"]
BOUNDS = [(0.0, 1.0), (-1e308, 1e308), (2.0**53, 2.0**53 + 2), (2.0**53, 2.0**53 + 6), (-0.1, 0.2), (0.0, 5e-324)]

cells = st.one_of(st.sampled_from(HARD), st.floats(allow_nan=False).map(repr), st.floats(-2, 2).map(repr))
rows = st.tuples(
    st.sampled_from(["p", "q", "r"]),
    cells,
    cells,
    st.sampled_from(["a", "b", "c", ""]),
    st.sampled_from(["0", "1", ""]),
)
predicates = st.sampled_from(
    [
        None,
        ir.Comparison("k", "=", "a"),
        ir.Not(ir.Comparison("k", "=", "a")),
        ir.IsNull("x"),
        ir.AnyOf((ir.IsIn("k", ("a", "other")), ir.Not(ir.IsNull("y")))),
    ]
)
outputs = st.lists(
    st.sampled_from(
        [
            ir.Count(), ir.Count("x"), ir.Count("k"), *statistics("y"),
            *(each for each in statistics("x") if not isinstance(each, ir.Quantile)),
            ir.Histogram("k"), ir.Histogram("y", (-1.0, 0.0, 0.25, 1.0)),
        ]
    )
    | models(["y", "x"], [("k", ["a", "b", "other"]), ("m", ["0", "1"])], [-1.0, 0.0, 0.25, 1.0]),
    min_size=1,
    max_size=5,
)  # fmt: skip


DERIVED = (
    ir.Derived("ratio", ir.Bounded(ir.Arithmetic("/", ir.Value("x"), ir.Value("y")), -2.0, 5.0)),
    ir.Derived("root", ir.Function("sqrt", ir.Arithmetic("*", ir.Value("y"), ir.Value("y")))),
    ir.Derived("truth", ir.Truth(ir.Comparison("k", "=", "a"))),
    ir.Derived("band", ir.Case((ir.Branch(ir.Comparison("ratio", ">", 0.0), ir.Constant("up")),), ir.Constant("down"))),
)
derived_outputs = st.lists(
    st.sampled_from([*statistics("ratio"), ir.Mean("truth"), ir.Quantile("root", 0.5), ir.Covariance("root", "truth")]),
    max_size=2,
)


def summed(dataset: Dataset, plan: Plan, data: Rows) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.csv"
        path.write_text("who,x,y,k,m\n" + "".join(",".join(row) + "\n" for row in data))
        table = config.parse(f'[datasets.t]\npath = "{path}"\n', path.parent).datasets["t"]
        source = open_source(table, dataset)
        try:
            return source.aggregate(plan, SALT).astype(object)
        finally:
            source.close()


def dataset_of(bounds: tuple[float, float], *, nullable: bool, max_rows: int) -> Dataset:
    return Dataset(
        "t",
        (
            Column("x", Numeric(*bounds), nullable=nullable),
            Column("y", Numeric(-1.0, 1.0)),
            Column("k", Categorical(("a", "b"), other=True)),
            Column("m", Categorical(("0", "1"))),
        ),
        privacy_unit="who",
        max_rows=max_rows,
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.lists(rows, max_size=25),
    person=st.lists(rows, min_size=1, max_size=25),
    bounds=st.sampled_from(BOUNDS),
    nullable=st.booleans(),
    max_rows=st.integers(1, 4),
    where=predicates,
    aggregates=outputs,
    more=derived_outputs,
    grouped=st.sampled_from(["", "k", "band"]),
    where_in_file=st.integers(0, 4),
    weights=st.just([1]) | st.lists(st.integers(1, 1000), min_size=1, max_size=3),
)
def test_adding_a_person_moves_the_sums_by_at_most_the_sensitivity(
    *,
    data: Rows,
    person: Rows,
    bounds: tuple[float, float],
    nullable: bool,
    max_rows: int,
    where: ir.Predicate | None,
    aggregates: Sequence[ir.Aggregate],
    more: Sequence[ir.Aggregate],
    grouped: str,
    where_in_file: int,
    weights: Sequence[int],
) -> None:
    """Wherever their rows stand in the file: nobody else's lottery is drawn anew because of them."""
    dataset = dataset_of(bounds, nullable=nullable, max_rows=max_rows)
    finite = max(map(abs, bounds)) < 1e100  # expressions refuse wider ones
    wide = more if finite else []
    usable = grouped == "k" or (grouped == "band" and finite)
    query = ir.Query(
        "t",
        tuple(
            ir.NamedAggregate(f"o{i}", aggregate, weights[i % len(weights)])
            for i, aggregate in enumerate([*aggregates, *wide])
        ),
        where=where,
        keys=(ir.Key(grouped),) if usable else (),
        derived=DERIVED if finite else (),
    )
    plan = make_plan(query, dataset)
    new = [("new", *row[1:]) for row in person]
    place = len(data) * where_in_file // 4
    with_them = [*data[:place], *new, *data[place:]]
    difference = summed(dataset, plan, with_them) - summed(dataset, plan, data)
    assert sum(int(v) ** 2 for v in difference) <= plan.delta_squared
    assert sum(abs(int(v)) for v in difference) <= plan.delta_one
    assert all(abs(v) <= plan.largest_sum for v in difference)


def test_a_person_with_ten_thousand_rows_counts_as_one() -> None:
    dataset = dataset_of((0.0, 1.0), nullable=True, max_rows=3)
    query = ir.Query(
        "t",
        (
            ir.NamedAggregate("n", ir.Count()),
            ir.NamedAggregate("s", ir.Stddev("x")),
            ir.NamedAggregate("h", ir.Histogram("y", (-1.0, 0.0, 1.0))),
        ),
        keys=(ir.Key("k"),),
    )
    plan = make_plan(query, dataset)
    others = [(f"p{i}", "0.5", "0.1", "b", "0") for i in range(50)]
    flood = [("flood", "1" if i % 2 else "1e300", "1", "a", "1") for i in range(10_000)]
    difference = summed(dataset, plan, [*others, *flood]) - summed(dataset, plan, others)
    assert sum(int(v) ** 2 for v in difference) == plan.delta_squared
    assert math.isclose(plan.delta_squared, 9 * 5 * 4**plan.scale_bits)


KINDS: dict[str, ir.Aggregate] = {
    repr(each): each
    for each in (
        ir.Count(), ir.Count("x"), *statistics("x"), ir.Histogram("y", (-1.0, 0.0, 1.0)), ir.Histogram("k"),
        ir.Covariance("x", "y"), ir.Correlation("x", "y"), ir.Line("slope", "y", "x"),
        ir.Matrix("components", ("x", "y")),
        ir.LinearModel("x", ("y", "k")), ir.MeanTest("x", 0.5), ir.GroupTest("anova", "x", "k"),
        ir.IndependenceTest("k", "m"), ir.Survival("y", "m", "1", (-1.0, 0.0, 1.0)),
        ir.LogRank("y", "m", "1", "k", (-1.0, 0.0, 1.0)), ir.Mean("ratio"), ir.Quantile("root", 0.9), ir.Sum("truth"),
    )
}  # fmt: skip


def test_ten_thousand_rows_of_one_person_move_no_kind_of_query_by_more_than_the_bound() -> None:
    dataset = dataset_of((0.0, 1.0), nullable=True, max_rows=3)
    spread = [("flood", str(i % 7 / 6), str(i % 5 / 2 - 1), "abc"[i % 3], str(i % 2)) for i in range(10_000)]
    alike = [("flood", "1", "1", "b", "1")] * 10_000
    for flood, keys in ((spread, (ir.Key("k"),)), (alike, ())):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "d.csv"
            path.write_text("who,x,y,k,m\n" + "".join(",".join(row) + "\n" for row in flood))
            table = config.parse(f'[datasets.t]\npath = "{path}"\n', path.parent).datasets["t"]
            source = open_source(table, dataset)
            for name, kind in KINDS.items():
                query = ir.Query("t", (ir.NamedAggregate("o", kind),), keys=keys, derived=DERIVED)
                plan = make_plan(query, dataset)
                moved = sum(int(v) ** 2 for v in source.aggregate(plan, SALT))
                assert 0 < moved <= plan.delta_squared, name
            source.close()

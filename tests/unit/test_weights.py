"""Weights move noise between the outputs of one query: by how much, at what sensitivity, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from harness.encoding import exact_sums

from analytics_client.agent.sources.vector import vector
from analytics_client.explain import explain
from queries import ir
from queries.encode import decode_query, encode_query
from queries.errors import DataError, QueryError, UnknownName
from queries.estimate import estimate
from queries.plan import Plan, make_plan
from queries.resolve import resolve
from queries.schema import Categorical, Column, Dataset, Numeric
from queries.sql import parse
from queries.weights import read_weights, weighted

RUNS = 2000
DATASET = Dataset(
    "t",
    (
        Column("x", Numeric(0.0, 64.0), nullable=False),
        Column("k", Numeric(0.0, 15.0, integer=True), nullable=False),
        Column("g", Categorical(("a", "b", "c")), nullable=False),
        Column("run", Categorical(tuple(f"r{number}" for number in range(RUNS))), nullable=False),
    ),
    "who",
    max_rows=2,
)
SCHEMAS = {"t": DATASET}
EVERY = "SELECT COUNT(*) AS n, AVG(x) AS m, VARIANCE(x) AS v, MEDIAN(k) AS q, HISTOGRAM(g) AS h FROM t"


def planned(sql: str, **weights: float) -> Plan:
    return make_plan(weighted(parse(sql, SCHEMAS), weights), DATASET)


def test_an_output_has_noise_in_inverse_proportion_to_its_weight_and_shared_sums_the_largest() -> None:
    plan = planned("SELECT COUNT(*) AS n, AVG(x) AS m, HISTOGRAM(g) AS h FROM t", m=3, h=0.5)
    gains = dict(zip([(slot.kind, slot.column) for slot in plan.slots], plan.gains, strict=True))
    assert gains == {("rows", None): 6, ("linear", "x"): 6, ("bin", "g"): 1}
    one = 1 << plan.scale_bits
    assert plan.delta_squared == 4 * (36 + 36 + 1) * one**2  # two rows of a person
    shape = plan.noise(10**7, threshold=4, colluders=1, invited=5)
    table = estimate(plan, np.zeros(plan.length, dtype=np.int64), shape, 5)
    errors = {output.name: float(np.ravel(output.standard_error)[0]) for output in table.outputs}
    deviation = math.sqrt(float(shape.total_variance(5))) / (one << shape.refine_bits)
    assert errors["n"] == pytest.approx(deviation / 6)
    assert errors["h"] == pytest.approx(deviation)


def test_equal_weights_are_no_weights() -> None:
    plain, query = planned(EVERY), parse(EVERY, SCHEMAS)
    assert planned(EVERY, **dict.fromkeys(("n", "m", "v", "q", "h"), 0.25)) == plain
    assert encode_query(weighted(query, {"n": 1})) == encode_query(query)
    assert set(plain.gains) == {1}


def test_slots_of_which_a_row_changes_one_are_raised_together_for_nothing() -> None:
    """Two tests that name different groups of one column: raising the one pays for the other."""
    one, two = (ir.GroupTest("welch", "x", "g", groups) for groups in (("a", "b"), ("b", "c")))
    both = (ir.NamedAggregate("one", one, 1), ir.NamedAggregate("two", two, 4))
    plan = make_plan(ir.Query("t", both), DATASET)
    assert set(plan.gains) == {4}
    assert plan.delta_squared == 4 * 3 * 16 << 2 * plan.scale_bits


def test_a_heavy_count_of_persons_is_worst_where_rows_are_spread() -> None:
    sql = "SELECT g, COUNT(DISTINCT who) AS p, COUNT(*) AS n FROM t GROUP BY g"
    assert planned(sql).delta_squared == 4 + 1  # both rows in one cell
    assert planned(sql, p=10).delta_squared == 2 * (1 + 100)  # a row in each of two


@pytest.mark.parametrize("weights", [{"n": 7.0}, {"m": 10.0}, {"v": 4.0, "q": 9.0}, {"n": 0.1, "h": 3.0}])
def test_intervals_cover_whatever_the_weights(weights: dict[str, float]) -> None:
    """2,000 releases of each: at 95% fewer than 1,840 or (not of quantiles) more than 1,960 have probability < 1e-8."""
    generator = np.random.default_rng(5)
    rows = 4000
    data = {
        "x": generator.gamma(4.0, 6.0, rows).clip(0, 64),
        "k": generator.binomial(15, 0.4, rows).astype(float),
        "g": generator.choice(3, rows, p=[0.5, 0.3, 0.2]).astype(float),
    }
    single = planned(EVERY, **weights)
    plan = replace(
        single, query=replace(single.query, keys=(ir.Key("run"),)), cells=tuple((f"r{n}",) for n in range(RUNS))
    )
    shape = plan.noise(3 * 10**6, threshold=4, colluders=1, invited=5)
    exact = np.tile(exact_sums(single, data) << shape.refine_bits, RUNS)
    noise = generator.normal(0, math.sqrt(float(shape.total_variance(5))), plan.length)
    released = exact + np.rint(noise).astype(np.int64)
    truths = {"n": rows, "m": data["x"].mean(), "v": data["x"].var(ddof=1), "q": np.median(data["k"]), "h": 0.0}
    truths["h"] = float((data["g"] == 0).sum())
    for believed, right in ((plan, True), (replace(plan, gains=plan.gains[::-1]), False)):
        found = {}
        for output in estimate(believed, released, shape, 5).outputs:
            low, high = (side if side.ndim == 1 else side[:, 0] for side in (output.low, output.high))
            found[output.name] = int(((low <= truths[output.name]) & (truths[output.name] <= high)).sum())
        fine = {name: hits >= 1840 and (hits <= 1960 or name == "q") for name, hits in found.items()}
        assert all(fine.values()) is right, found


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf, 1e-9, 1e9, 1001, math.pi / 3, True, "2", None])
def test_what_is_no_weight_is_refused(weight: object) -> None:
    with pytest.raises(QueryError, match="weight"):
        weighted(parse(EVERY, SCHEMAS), {"n": weight})  # type: ignore[dict-item]


def test_an_unknown_output_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'm'"):
        weighted(parse(EVERY, SCHEMAS), {"mm": 2})


@pytest.mark.parametrize("weight", [0, -3, 1.5, True, 10_007])
def test_the_gate_refuses_weights_that_no_front_end_makes(weight: object) -> None:
    query = parse(EVERY, SCHEMAS)
    first = replace(query.aggregates[0], weight=weight)  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="weight"):
        resolve(replace(query, aggregates=(first, *query.aggregates[1:])), DATASET)


def test_weights_are_signed_in_lowest_terms() -> None:
    query = weighted(parse(EVERY, SCHEMAS), {"n": 1.5, "m": 3})
    assert [named.weight for named in query.aggregates] == [3, 6, 2, 2, 2]
    assert decode_query(encode_query(query)) == query
    doubled = replace(query, aggregates=tuple(replace(n, weight=2 * n.weight) for n in query.aggregates))
    assert resolve(doubled, DATASET) == resolve(query, DATASET)


@pytest.mark.parametrize("text", ["", "n", "n=", "=2", "n=two", "n=2;m=1", "n=2,,m=1", "n=nan"])
def test_texts_that_are_no_weights_are_refused(text: str) -> None:
    with pytest.raises(QueryError, match="weights are written"):
        read_weights(text)


def test_weights_are_read_from_text() -> None:
    assert read_weights("n=2, m = 0.5") == {"n": 2.0, "m": 0.5}
    with pytest.raises(QueryError, match="two weights"):
        read_weights("n=2,n=3")


def test_sums_that_leave_64_bits_when_raised_are_refused() -> None:
    plan = planned("SELECT COUNT(*) AS n, AVG(x) AS m FROM t", n=1000)
    with pytest.raises(DataError, match="larger than the schema allows"):
        vector(plan, [(0, 0, 0, 1 << (60 - plan.scale_bits), 5)])
    assert vector(plan, [(0, 0, 0, 7, 5)]).tolist() == [1000 * 7 << plan.scale_bits, 5]


def test_the_explanation_shows_weights_and_the_widths_that_follow() -> None:
    sql = "SELECT COUNT(*) AS n, HISTOGRAM(g) AS h FROM t"
    told = [
        explain(planned(sql, **weights), 10**7, institutions=tuple("abcde"), colluders=1) for weights in ({}, {"n": 3})
    ]
    plain, heavy = ({width.name: width.half_width for width in each.widths} for each in told)
    assert plain["n"] == pytest.approx(plain["h"])
    assert heavy["n"] == pytest.approx(heavy["h"] / 3)
    assert heavy["n"] < plain["n"] < heavy["h"]
    assert told[0].weights == {}
    assert "n 3, h 1" in str(told[1])
    assert told[1].to_dict()["weights"] == {"n": 3, "h": 1}

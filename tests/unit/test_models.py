"""Models, tests and curves as questions: what front ends make of them, what the gate refuses, what they disclose."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from harness.encoding import exact_sums

from analytics_client.result import Cost, Result
from queries import ir, schema
from queries.builder import (
    Builder,
    Measure,
    Table,
    _,
    anova,
    correlation,
    correlation_matrix,
    covariance_matrix,
    independence_test,
    linear_model,
    log_rank,
    paired_t_test,
    principal_components,
    slope,
    survival,
    t_test,
)
from queries.errors import CohortiumError, LiteralError, QueryError, SqlError, UnknownName
from queries.estimate import estimate, expected_widths
from queries.noise import NoiseShape
from queries.plan import Plan, make_plan
from queries.resolve import columns_used, operations_used, shape
from queries.sql import parse

DATASET = schema.from_toml("""
name = "patients"
privacy_unit = "patient_id"
[columns]
age  = { type = "integer", lower = 0, upper = 120, nullable = false }
chol = { type = "number", lower = 50, upper = 600 }
days = { type = "number", lower = 0, upper = 1000 }
sex  = { type = "category", categories = ["female", "male"] }
diag = { type = "category", categories = ["none", "flu", "angina"], other = true }
""")
EXACT = NoiseShape(0, Fraction(0), Fraction(0))


def asked(**outputs: Measure) -> Builder:
    return Table(DATASET).agg(**outputs)


def plan_of(measure: Measure) -> Plan:
    return make_plan(asked(out=measure).build(), DATASET)


@pytest.mark.parametrize(
    ("select", "node"),
    [
        ("CORR(chol, age)", ir.Correlation("chol", "age")),
        ("COVAR_POP(chol, age)", ir.Covariance("chol", "age", 0)),
        ("covar_samp(chol, chol)", ir.Covariance("chol", "chol", 1)),
        ("REGR_SLOPE(chol, age)", ir.Line("slope", "chol", "age")),
        ("REGR_INTERCEPT(chol, age)", ir.Line("intercept", "chol", "age")),
        ("REGR_R2(chol, age)", ir.Line("r2", "chol", "age")),
        ("REGR_COUNT(chol, age)", ir.Line("count", "chol", "age")),
    ],
)
def test_sql_names_the_response_first(select: str, node: ir.Model) -> None:
    (named,) = parse(f"SELECT {select} FROM patients", {"patients": DATASET}).aggregates
    assert named.aggregate == node
    assert named.name == select.lower().replace("(", "_").replace(", ", "_").rstrip(")")


@pytest.mark.parametrize(
    ("select", "error", "says"),
    [
        ("CORR(chol)", SqlError, "takes two columns"),
        ("CORR(chol, sex)", SqlError, "categorical"),
        ("CORR(chol, chol)", QueryError, "names a column twice"),
        ("REGR_SLOPE(chol, agee)", UnknownName, "agee"),
        ("REGR_SLOPES(chol, age)", SqlError, "REGR_SLOPE"),
        ("CORR(patient_id, age)", SqlError, "names the person"),
    ],
)
def test_sql_says_where_a_pair_is_wrong(select: str, error: type[CohortiumError], says: str) -> None:
    with pytest.raises(error) as caught:
        parse(f"SELECT {select} FROM patients", {"patients": DATASET})
    assert says in str(caught.value)
    assert "line 1" in str(caught.value)


REFUSED: list[tuple[Measure, type[QueryError], str]] = [
    (linear_model(_.sex, on=[_.age]), QueryError, "categorical"),
    (linear_model(_.chol, on=[]), QueryError, "needs a predictor"),
    (linear_model(_.chol, on=[_.age, _.age]), QueryError, "twice"),
    (linear_model(_.chol, on=[_.patient_id]), QueryError, "names the person"),
    (correlation_matrix(_.age), QueryError, "2 to 64 columns"),
    (covariance_matrix(_.age, _.sex), QueryError, "categorical"),
    (t_test(_.chol, mean=20), LiteralError, "outside its published bounds"),
    (t_test(_.chol, mean=math.nan), LiteralError, "is a number"),
    (t_test(_.chol, by=_.diag), QueryError, "compares 2 groups, not 4"),
    (t_test(_.chol, by=_.diag, groups=["flu", "fluu"]), LiteralError, "no such category"),
    (t_test(_.chol, by=_.diag, groups=["flu", "flu"]), QueryError, "twice"),
    (t_test(_.chol, by=_.age), QueryError, "needs groups"),
    (anova(_.sex, _.diag), QueryError, "categorical"),
    (independence_test(_.sex, _.sex), QueryError, "twice"),
    (independence_test(_.sex, _.age), QueryError, "needs groups"),
    (survival(_.days, _.diag, happened="fluu", bins=10), LiteralError, "no such category"),
    (survival(_.days, _.diag, happened="flu", edges=[0, 0, 10]), QueryError, "do not ascend"),
    (survival(_.days, _.diag, happened="flu", edges=[0, 5000]), LiteralError, "outside its published bounds"),
    (survival(_.days, _.diag, happened="flu", bins=5000), QueryError, "bins of time"),
    (log_rank(_.days, _.diag, happened="flu", by=_.diag, bins=10), QueryError, "twice"),
]


@pytest.mark.parametrize(("measure", "error", "says"), REFUSED, ids=range(len(REFUSED)))
def test_the_gate_says_what_is_wrong_with_a_model_and_what_to_do(
    measure: Measure, error: type[QueryError], says: str
) -> None:
    with pytest.raises(error) as caught:
        asked(out=measure).build()
    assert says in str(caught.value)
    assert caught.value.hint


def test_models_have_as_many_columns_as_a_database_can_sum() -> None:
    wide = schema.Dataset("wide", tuple(schema.Column(f"x{i}", schema.Numeric(0, 1)) for i in range(40)))
    columns = [_[column.name] for column in wide.columns]
    for measure in (correlation_matrix(*columns), linear_model(columns[0], on=columns[1:])):
        with pytest.raises(QueryError, match="at most 600 are possible"):
            Table(wide).agg(out=measure).build()
    assert len(make_plan(Table(wide).agg(out=linear_model(columns[0], on=columns[1:30])).build(), wide).slots) == 496


def test_a_t_test_compares_with_one_thing() -> None:
    for arguments in ({}, {"mean": 200, "by": _.sex}):
        with pytest.raises(QueryError, match="a mean or by a column"):
            t_test(_.chol, **arguments)  # type: ignore[arg-type]


def test_policy_sees_operations_and_columns() -> None:
    query = asked(
        fit=linear_model(_.chol, on=[_.age, _.sex]), same=log_rank(_.days, _.diag, happened="flu", by=_.sex, bins=9)
    )
    built = query.build()
    assert operations_used(built) == {"linear_model", "log_rank"}
    assert columns_used(built) == {"chol", "age", "sex", "days", "diag"}
    assert shape(built) == "linear_model(chol, age, sex), log_rank(days, diag, sex)"


@pytest.mark.parametrize(
    ("measure", "touched"),
    [
        (correlation(_.age, _.chol), 6),
        (slope(_.chol, _.age), 5),
        # constant, age, sex and chol: all products of two but sex with itself, which counts with sex
        (linear_model(_.chol, on=[_.age, _.sex]), 9),
        (linear_model(_.chol, on=[_.age, _.diag]), 9),  # three indicators, of which a row has one
        (t_test(_.chol, by=_.sex), 3),
        (anova(_.chol, _.diag), 3),
        (paired_t_test(_.chol, _.age), 6),
        (principal_components(_.age, _.chol, _.days), 10),
        (independence_test(_.sex, _.diag), 1),
        (survival(_.days, _.diag, happened="flu", bins=100), 1),
        (log_rank(_.days, _.diag, happened="flu", by=_.sex, bins=100), 1),
    ],
    ids=str,
)
def test_what_one_row_can_change(measure: Measure, touched: int) -> None:
    plan = plan_of(measure)
    assert plan.delta_squared == touched << 2 * plan.scale_bits


def test_outputs_over_the_same_rows_share_their_sums() -> None:
    alone = plan_of(linear_model(_.chol, on=[_.age]))
    both = make_plan(
        asked(fit=linear_model(_.chol, on=[_.age]), b=slope(_.chol, _.age), r=correlation(_.chol, _.age)).build(),
        DATASET,
    )
    assert set(both.slots) == set(alone.slots)


def test_a_missing_value_leaves_a_row_out_of_the_whole_model() -> None:
    names = {slot.among for slot in plan_of(linear_model(_.chol, on=[_.age, _.days])).slots if slot.kind == "product"}
    assert names == {("chol", "days")}


def people(rows: int = 500) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(4)
    age = generator.uniform(20, 90, rows)
    return {
        "age": age,
        "chol": np.clip(150 + age + generator.normal(0, 30, rows), 50, 600),
        "days": np.clip(generator.exponential(400, rows), 0, 1000),
        "sex": generator.integers(0, 2, rows).astype(float),
        "diag": generator.integers(0, 4, rows).astype(float),
    }


EVERY = {
    "fit": linear_model(_.chol, on=[_.age, _.diag]),
    "r": correlation_matrix(_.age, _.chol, _.days),
    "pc": principal_components(_.age, _.chol),
    "t": t_test(_.chol, by=_.sex),
    "chi": independence_test(_.sex, _.diag),
    "alive": survival(_.days, _.diag, happened="flu", bins=10),
    "same": log_rank(_.days, _.diag, happened="flu", by=_.sex, bins=10),
}


def test_a_released_model_turns_into_every_form_of_a_result() -> None:
    query = asked(**EVERY).build()
    plan = make_plan(query, DATASET)
    noise = plan.noise(10_000_000, threshold=4, colluders=1, invited=5)
    sums = exact_sums(plan, people()) << noise.refine_bits
    table = estimate(plan, sums, noise, 5)
    result = Result(table, "patients", shape(query), "00", Cost(0.01, 0.5, 1e-6), ("a", "b", "c"), 3, 1, 2)
    parsed = json.loads(result.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {row["bin"] for row in parsed["rows"][0]["fit"]} > {"intercept", "age", "diag=flu", "r_squared"}
    assert "fit intercept" in str(result) or "intercept" in result._repr_html_()
    assert len(result.to_pandas().columns) == 5 * sum(len(output.bins) for output in table.outputs)


def test_the_noise_share_is_the_part_of_the_error_that_a_population_does_not_add() -> None:
    """Of the same release read both ways; at more privacy more of the error is noise, at a test's statistic none."""
    by_rho = []
    for rho_nano in (10**7, 10**9):
        pair = {}
        for population in (True, False):
            plan = make_plan(
                asked(
                    fit=linear_model(_.chol, on=[_.age], population=population),
                    alive=survival(_.days, _.diag, happened="flu", bins=10, population=population),
                    t=t_test(_.chol, by=_.sex),
                ).build(),
                DATASET,
            )
            noise = plan.noise(rho_nano, threshold=4, colluders=1, invited=5)
            table = estimate(plan, exact_sums(plan, people(20_000)) << noise.refine_bits, noise, 5)
            pair[population] = {output.name: output for output in table.outputs}
        for name, parts in (("fit", 2), ("alive", 10)):
            drawn, own = (pair[population][name] for population in (True, False))
            error, alone, share = (a[0, :parts] for a in (drawn.standard_error, own.standard_error, drawn.noise_share))
            assert share == pytest.approx(alone**2 / error**2, rel=1e-9)
            assert (own.noise_share == 1).all()
        assert np.isnan(pair[True]["t"].noise_share[0, :3]).all()
        by_rho.append([pair[True]["fit"].noise_share[0, 1], pair[True]["t"].noise_share[0, 3]])
    (dear_fit, dear_t), (cheap_fit, cheap_t) = by_rho
    assert 0 < cheap_fit < dear_fit < 1
    assert 0 < cheap_t < dear_t < 1


def test_a_model_alone_has_a_row_a_number() -> None:
    plan = plan_of(linear_model(_.chol, on=[_.age]))
    table = estimate(plan, exact_sums(plan, people()), EXACT, 5)
    assert table.keys == ("term",)
    assert [keys[0] for keys in table.row_keys] == ["intercept", "age", "rows", "residual_df", "deviance", "r_squared"]


def test_empty_groups_and_tiny_data_give_answers_without_information() -> None:
    """Nobody, one person, the same value throughout: no crash, no NaN, no bounded claim."""
    query = asked(**EVERY).build()
    plan = make_plan(query, DATASET)
    for data in ({name: values[:0] for name, values in people().items()}, {n: v[:1] for n, v in people().items()}):
        for noise in (EXACT, plan.noise(1_000_000, threshold=4, colluders=1, invited=5)):
            table = estimate(plan, exact_sums(plan, data) << noise.refine_bits, noise, 5)
            for output in table.outputs:
                assert not np.isnan(
                    np.concatenate([output.value.ravel(), output.low.ravel(), output.high.ravel()])
                ).any()
                assert np.all(output.low <= output.value)
                assert np.all(output.value <= output.high)


def test_expected_widths_name_each_number_and_shrink_with_what_is_spent() -> None:
    plan = make_plan(asked(fit=linear_model(_.chol, on=[_.age]), r=correlation(_.age, _.chol)).build(), DATASET)
    wide, narrow = (
        {w.name: w.half_width for w in expected_widths(plan, plan.noise(rho, threshold=4, colluders=1, invited=5), 5)}
        for rho in (10_000_000, 1_000_000_000)
    )
    assert {"fit intercept", "fit age", "fit deviance", "r"} <= set(wide)
    assert all(narrow[name] < wide[name] for name in ("r", "fit deviance", "fit rows"))


def test_a_null_hypothesis_that_is_false_is_rejected_and_the_difference_found() -> None:
    plan = plan_of(t_test(_.chol, by=_.sex))
    data = people(5_000)
    data["chol"] = np.clip(data["chol"] + 30 * data["sex"], 50, 600)
    noise = plan.noise(100_000_000, threshold=4, colluders=1, invited=5)
    (output,) = estimate(plan, exact_sums(plan, data) << noise.refine_bits, noise, 5).outputs
    found = dict(zip((each.label for each in output.bins), output.value.tolist(), strict=True))
    assert found["p_value"] < 1e-6
    assert found["difference"] == pytest.approx(-30, abs=5)


def test_nodes_are_values() -> None:
    node = ir.LinearModel("chol", ("age",))
    assert node == replace(node)
    assert hash(node) == hash(replace(node))

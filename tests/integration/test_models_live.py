"""A model, a test and a correlation over real hospitals, with real noise: from the question to what it says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import statsmodels.api as sm
from harness.consortium import Consortium, consortium
from harness.data import HEART_SCHEMA, heart_files, heart_pooled, needs_data

from queries.builder import _, correlation, linear_model, t_test

pytestmark = needs_data


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with consortium(tmp_path_factory.mktemp("heart"), [HEART_SCHEMA], heart_files()) as running:
        yield running


def test_a_released_regression_lies_where_its_standard_errors_say(heart: Consortium) -> None:
    """Each number lies within 6 of its standard errors: false alarms below 1e-8. At rho 1 that tells a wrong unit, sign
    or column from noise; a truth that is 12 errors away fails.
    """
    rows = heart_pooled()[["trestbps", "age", "sex", "chol"]].dropna(subset=["trestbps"])
    design = sm.add_constant(rows[["age"]].astype(float)).assign(male=(rows.sex == "male") * 1.0)
    truth = sm.OLS(rows.trestbps, design).fit()
    with heart.session() as session:
        question = session.table("heart").agg(
            fit=linear_model(_.trestbps, on=[_.age, _.sex], population=False),
            r=correlation(_.trestbps, _.age),
            sexes=t_test(_.trestbps, by=_.sex),
        )
        explanation = session.explain(question, rho=1.0)
        assert {"fit age", "r", "sexes difference"} <= {width.name for width in explanation.widths}
        result = session.query(question, rho=1.0)
    fit, r, sexes = result.table.outputs
    found = {each.label: (fit.value[0, i], fit.standard_error[0, i]) for i, each in enumerate(fit.bins)}
    expected = {
        "intercept": truth.params["const"],
        "age": truth.params["age"],
        "sex=male": truth.params["male"],
        "rows": len(rows),
        "deviance": truth.ssr,
    }
    for label, value in expected.items():
        estimate, error = found[label]
        assert np.isfinite(error)
        assert abs(estimate - value) <= 6 * error, label
        assert not abs(estimate - value - 12.1 * error) <= 6 * error, label
    assert abs(r.value[0] - rows.trestbps.corr(rows.age)) <= 6 * r.standard_error[0]
    by = dict(list(rows.groupby("sex").trestbps))
    place = [each.label for each in sexes.bins].index("difference")
    assert abs(sexes.value[0, place] - (by["female"].mean() - by["male"].mean())) <= 6 * sexes.standard_error[0, place]
    assert 0 <= sexes.value[0, place - 1] <= 1

"""Without noise every number equals that of pandas, scipy and statsmodels on the pooled files (relative error 1e-8)."""

from __future__ import annotations

import pytest
from harness.data import needs_data
from harness.parity import Case, cases


@pytest.fixture(scope="module")
def found() -> dict[str, Case]:
    return {case.name: case for case in cases()}


@needs_data
def test_every_number_equals_the_library(found: dict[str, Case]) -> None:
    assert len(found) >= 100
    assert {name: case for name, case in found.items() if not case.agrees} == {}


@needs_data
def test_what_datashield_publishes_for_its_simulated_studies(found: dict[str, Case]) -> None:
    assert found["cnsim: avg_lab_tsc"].value == pytest.approx(5.85192485623003, rel=1e-12)
    assert found["cnsim: fit residual_df"].value == 7798
    assert round(found["cnsim: fit deviance"].value, 2) == 8936.32


@needs_data
def test_a_quantile_is_that_of_all_rows_and_no_average_of_the_studies(found: dict[str, Case]) -> None:
    quantile = found["cnsim: quantile 0.05 of lab_hdl"]
    assert round(quantile.reference, 4) == 0.8714  # DataSHIELD averages the studies' own to 0.8678
    assert abs(quantile.value - quantile.reference) <= quantile.leaf < 0.002

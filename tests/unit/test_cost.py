"""`cohortium cost`: the same numbers that agents charge by, for people."""

import json

import pytest
from typer.testing import CliRunner

from analytics_client.cli import app
from analytics_client.cost import of_job, of_query
from queries.accounting import Budget, Curve
from queries.errors import BudgetError


def _json(*words: str) -> dict[str, float]:
    done = CliRunner().invoke(app, ["cost", *words, "--json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.output))


@pytest.mark.parametrize(("rho", "epsilon"), [(0.001, 0.1829), (0.1, 2.142), (1.0, 7.766)])
def test_rho_and_epsilon_convert_both_ways(rho: float, epsilon: float) -> None:
    assert _json("--rho", str(rho))["epsilon"] == pytest.approx(epsilon, abs=5e-4)
    assert _json("--epsilon", str(epsilon))["rho"] == pytest.approx(rho, rel=1e-3)


def test_the_number_of_queries_is_the_ledgers_own() -> None:
    found = of_query(delta=1e-6, epsilon=0.1, rho=None, budget=2.0)
    budget, step = Budget(2.0, 1e-6), Curve.from_rho_nano(round(found.rho * 1e9))
    assert found.queries is not None
    assert budget.admits(Curve.zero(), step * found.queries)
    assert not budget.admits(Curve.zero(), step * (found.queries + 1))
    assert found.queries > 20  # far more than 2.0 / 0.1: costs add up as rho


def test_a_job_is_priced_and_its_noise_is_found() -> None:
    sampled = ("--rounds", "200", "--batch", "256", "--persons", "20000", "--delta", "1e-5")
    needed = _json(*sampled, "--epsilon", "2")["multiplier"]
    assert _json(*sampled, "--noise", str(needed))["epsilon"] == pytest.approx(2, rel=1e-3)
    assert of_job(delta=1e-5, rounds=200, rate=1.0, epsilon=2, multiplier=None, budget=None).multiplier > 5 * needed


def test_sentences_say_what_fits() -> None:
    done = CliRunner().invoke(app, ["cost", "--epsilon", "0.5", "--budget", "4"])
    assert "allows" in done.output
    assert "rho" in done.output
    done = CliRunner().invoke(app, ["cost", "--rounds", "10", "--noise", "4", "--budget", "4"])
    assert "everybody" in done.output
    assert "such jobs" in done.output


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--epsilon", "1", "--rho", "1"],
        ["--epsilon", "-1"],
        ["--rho", "0"],
        ["--rho", "nan"],
        ["--rounds", "5", "--noise", "1", "--delta", "0"],
        ["--rounds", "5", "--epsilon", "1", "--delta", "0"],
        ["--epsilon", "1", "--noise", "2"],
        ["--rounds", "5"],
        ["--rounds", "0", "--noise", "1"],
        ["--rounds", "5", "--noise", "1", "--batch", "10"],
        ["--rounds", "5", "--noise", "1", "--batch", "10", "--persons", "0"],
        ["--rounds", "5", "--noise", "1", "--batch", "30", "--persons", "20"],
        ["--rounds", "5", "--noise", "1", "--epsilon", "1"],
    ],
)
def test_what_cannot_be_is_refused(words: list[str]) -> None:
    done = CliRunner().invoke(app, ["cost", *words])
    assert isinstance(done.exception, BudgetError)

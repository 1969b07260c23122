"""A dataset without a delta, over real connections: Laplace noise in shares, sums of epsilons, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness.consortium import Consortium, consortium
from scipy import stats

from analytics_client.agent.balance import balances
from analytics_client.agent.ledger import Ledger
from analytics_server import governance
from analytics_server.control import poke
from analytics_server.coordinator.rounds import Deadlines
from queries.builder import _, t_test
from queries.errors import BudgetError, QueryError

SCHEMA = """
name = "people"
privacy_unit = "id"
max_persons = 1000
delta = {delta}
[columns.age]
type = "integer"
lower = 0
upper = 100
[columns.sex]
type = "category"
categories = ["f", "m"]
[columns.place]
type = "category"
categories = [{places}]
"""
INSTITUTIONS = ("ash", "birch", "cedar", "dogwood")
PLACES = 4000
"""Groups nobody is in: each shows a draw of the noise."""


def schema(delta: str) -> str:
    return SCHEMA.format(delta=delta, places=", ".join(f'"p{i}"' for i in range(PLACES)))


def files(folder: Path) -> dict[str, dict[str, str]]:
    out = {}
    for name in INSTITUTIONS:
        rows = "".join(f"{name}-{i},{20 + i % 60},{'fm'[i % 2]},elsewhere\n" for i in range(120))
        path = folder / f"{name}.csv"
        path.write_text("id,age,sex,place\n" + rows)
        out[name] = {"people": f'path = "{path}"'}
    return out


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Consortium]:
    with consortium(tmp_path, [schema("0")], files(tmp_path), deadlines=Deadlines(join=4), epsilon=2.0) as built:
        yield built


def test_epsilons_add_up_to_the_budget_and_the_ledger_says_so(running: Consortium) -> None:
    question = "SELECT sex, COUNT(*) AS n, AVG(age) AS age, STDDEV(age) AS s, MEDIAN(age) AS m FROM people GROUP BY sex"
    with running.session() as session:
        explained = session.explain(question, epsilon=1.0)
        assert explained.sensitivity == explained.plan.delta_one / 2**explained.plan.scale_bits > 4
        assert "Laplace noise" in str(explained)
        result = session.query(question, epsilon=1.0)
        assert (result.cost.epsilon, result.cost.delta, result.cost.rho) == (1.0, 0.0, 0.5)
        for sex in ("f", "m"):
            n = result.estimate("n", sex=sex)
            assert n.low < n.value < n.high
            assert abs(n.value - 240) < 40 * n.standard_error
        session.query("SELECT COUNT(*) AS n FROM people", epsilon=0.75)
        with pytest.raises(BudgetError, match="does not cover") as refused:
            session.query("SELECT COUNT(*) AS n FROM people", epsilon=0.26)
        assert "one query of epsilon 0.25 would still fit" in str(refused.value.hint or refused.value.refusals)
        assert session.explain("SELECT COUNT(*) AS n FROM people", epsilon=0.26).refusals_expected
        assert not session.explain("SELECT COUNT(*) AS n FROM people", epsilon=0.25).refusals_expected
        session.query("SELECT COUNT(*) AS n FROM people", epsilon=0.25)
        with pytest.raises(BudgetError):
            session.query("SELECT COUNT(*) AS n FROM people", epsilon=0.01)
    with Ledger.read(running.folder / "ash" / "ledger.sqlite") as ledger:
        for balance in balances(ledger.accounts()):
            assert (balance.spent, balance.budget, balance.left, balance.delta) == (2.0, 2.0, 0.0, 0.0)


@pytest.mark.parametrize("alive", [4, 3])
def test_released_noise_is_laplace_of_the_stated_scale(running: Consortium, alive: int) -> None:
    """16,000 empty groups against the product's own statement; a variance-gamma variable is that part of Laplace.

    At level 10^-6, and the same noise as if it were Gaussian, or of one share less, is rejected.
    """
    if alive < len(INSTITUTIONS):
        running.agents["dogwood"].stop()
        running.wait_until_served("people", alive)
    with running.session() as session:
        explained = session.explain("SELECT place, COUNT(*) AS n FROM people GROUP BY place", epsilon=0.5)
        results = [
            session.query("SELECT place, COUNT(*) AS n FROM people GROUP BY place", epsilon=0.5) for _n in "1234"
        ]
    assert {len(result.survivors) for result in results} == {alive}
    shape = explained.noise
    assert shape.scale == 2 * 2**shape.refine_bits  # one person, epsilon a half
    noise = np.concatenate([result.table.outputs[0].value for result in results])
    part = float(shape.part(shape.total_variance(alive)))
    assert stats.kstest(noise, laplace(part, 2.0)).pvalue > 1e-6
    assert stats.kstest(noise, laplace(part * (alive - 1) / alive, 2.0)).pvalue < 1e-6
    assert stats.kstest(noise, stats.norm(scale=2 * np.sqrt(2 * part)).cdf).pvalue < 1e-6


def laplace(part: float, scale: float) -> np.ndarray:
    """A large sample of a part of Laplace noise: the difference of two gamma variables."""
    generator = np.random.default_rng(1)
    up, down = generator.gamma(part, scale, (2, 2_000_000))
    return up - down


def test_what_needs_gaussian_noise_is_refused_before_anything_is_spent(running: Consortium) -> None:
    with running.session() as session:
        people = session.table("people")
        with pytest.raises(QueryError, match="has no delta"):
            session.query(people.agg(t=t_test(_.age, by=_.sex)), epsilon=0.5)
        job = {"dataset": "people", "label": "age", "features": ["sex"]}
        with pytest.raises(QueryError, match="has no delta"):
            session.train("linear", epsilon=0.5, **job)
        with pytest.raises(BudgetError, match="needs a delta"):
            session.train("linear", epsilon=0.5, method="sgd", clip=1.0, learning_rate=0.1, **job)
    with Ledger.read(running.folder / "ash" / "ledger.sqlite") as ledger:
        assert ledger.accounts() == ()


def test_a_dataset_that_was_answered_with_a_delta_serves_nothing_without_one(tmp_path: Path) -> None:
    with consortium(tmp_path, [schema("1e-6")], files(tmp_path), deadlines=Deadlines(join=4), epsilon=50.0) as running:
        with running.session() as session:
            session.query("SELECT COUNT(*) AS n FROM people", epsilon=0.5)
        with governance.opened(running.config) as (opened, log):
            office = governance.open_governance(running.folder / "server" / governance.FOLDER, running.config)
            governance.publish_dataset(opened, log, office, schema("0"))
        poke(running.folder / "server")
        running.wait_until_served("people", len(INSTITUTIONS))
        with running.session() as session, pytest.raises(BudgetError, match="answered with a delta before"):
            session.query("SELECT COUNT(*) AS n FROM people", epsilon=0.5)

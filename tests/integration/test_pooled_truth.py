"""The whole path, from SQL text to result, over real hospitals: exact without noise, honest with it.

Noise is taken out *inside this harness only*, by replacing the function that draws it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from harness.consortium import Consortium, consortium
from harness.data import (
    CNSIM_SCHEMA,
    HEART_SCHEMA,
    cnsim_files,
    cnsim_pooled,
    heart_files,
    heart_pooled,
    needs_data,
)
from harness.noiseless import remove_noise
from scipy import stats

from analytics_client.agent.active import ActiveRound
from analytics_client.agent.responder import Responder
from queries.errors import ServiceError

pytestmark = needs_data


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with consortium(tmp_path_factory.mktemp("heart"), [HEART_SCHEMA], heart_files()) as running:
        yield running


@pytest.fixture(scope="module")
def cnsim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with consortium(tmp_path_factory.mktemp("cnsim"), [CNSIM_SCHEMA], cnsim_files()) as running:
        yield running


@pytest.fixture
def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    remove_noise(monkeypatch)


def check(value: float, truth: float) -> None:
    assert value == pytest.approx(truth, rel=1e-9), (value, truth)


@pytest.mark.usefixtures("no_noise")
def test_every_statistic_of_the_four_hospitals_equals_pandas(heart: Consortium) -> None:
    pooled = heart_pooled()
    with heart.session() as session:
        result = session.query(
            "SELECT sex, COUNT(*) AS n, AVG(age) AS age, STDDEV(age) AS sd, VAR_POP(age) AS var, SUM(chol) AS chol,"
            " COUNT(chol) AS chols, AVG(trestbps) AS bp FROM heart"
            " WHERE age BETWEEN 40 AND 65 AND num <> 3 GROUP BY sex",
            epsilon=1,
        )
    chosen = pooled[pooled.age.between(40, 65) & (pooled.num != 3)]
    for sex, rows in chosen.groupby("sex"):
        cell = {name: result.estimate(name, sex=str(sex)).value for name in result.columns}
        check(cell["n"], len(rows))
        check(cell["age"], rows.age.mean())
        check(cell["sd"], rows.age.std())
        check(cell["var"], rows.age.var(ddof=0))
        check(cell["chol"], rows.chol.sum())
        check(cell["chols"], rows.chol.count())
        check(cell["bp"], rows.trestbps.mean())


def test_weights_move_noise_and_no_value(heart: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed, planned alike by analyst, coordinator and agents, and undone in the answer."""
    sql, weights = (
        "SELECT sex, COUNT(*) AS n, AVG(age) AS age, MEDIAN(chol) AS mid FROM heart GROUP BY sex",
        {"age": 2.5},
    )
    with heart.session() as session:
        plain, weighted = session.explain(sql, epsilon=1), session.explain(sql, epsilon=1, weights=weights)
        assert weighted.weights == {"n": 2, "age": 5, "mid": 2}
        before, after = ({w.name: w.half_width for w in each.widths} for each in (plain, weighted))
        assert after["age"] < before["age"] / 1.5
        assert after["mid"] > before["mid"]
        answer = session.query(sql, epsilon=1, weights=weights)
        assert answer.estimate("age", sex="male").standard_error < before["age"]
        remove_noise(monkeypatch)
        exact = session.query(sql, epsilon=1, weights=weights)
        same = session.query(sql, epsilon=1)
    assert [row.keys for row in exact.rows] == [row.keys for row in same.rows]
    for row in exact.rows:
        for name in exact.columns:
            check(exact.estimate(name, sex=row.keys[0]).value, same.estimate(name, sex=row.keys[0]).value)


@pytest.mark.usefixtures("no_noise")
def test_histograms_equal_pandas(heart: Consortium) -> None:
    pooled = heart_pooled()
    with heart.session() as session:
        numeric = session.query("SELECT HISTOGRAM(age, 12) AS h FROM heart", epsilon=1).to_pandas()
        kinds = session.query("SELECT HISTOGRAM(cp) AS h FROM heart", epsilon=1).to_pandas()
    edges = np.linspace(0, 120, 13)
    assert list(numeric["h"]) == list(np.histogram(pooled.age, bins=edges)[0])
    assert list(kinds["h"]) == [int((pooled.cp == kind).sum()) for kind in (1, 2, 3, 4)]


@pytest.mark.usefixtures("no_noise")
def test_messy_headers_and_missing_values_of_the_three_studies_equal_pandas(cnsim: Consortium) -> None:
    pooled = cnsim_pooled()
    with cnsim.session() as session:
        table = session.table("cnsim")
        from queries.builder import _, count

        expression = (
            table.filter((_.bmi >= 20) & ~_.lab_hdl.isnull())
            .group_by(_.gender, _.dis_diab)
            .agg(n=count(), tsc=_.lab_tsc.mean(), sd=_.lab_tsc.std(), hdl=_.lab_hdl.sum())
        )
        result = session.query(expression, epsilon=1)
        everyone = session.query("SELECT AVG(lab_tsc) AS tsc, COUNT(lab_tsc) AS n FROM cnsim", epsilon=1)
        rows = session.query("SELECT COUNT(*) AS n FROM cnsim", epsilon=1)
    check(everyone.estimate("tsc").value, 5.85192485623003)  # DataSHIELD's published mean
    check(everyone.estimate("n").value, 7825)
    check(rows.estimate("n").value, 9379)
    chosen = pooled[(pooled.bmi >= 20) & pooled.lab_hdl.notna()]
    for (gender, diabetes), rows in chosen.groupby(["gender", "dis_diab"]):
        cell = {n: result.estimate(n, gender=str(gender), dis_diab=str(diabetes)).value for n in result.columns}
        check(cell["n"], len(rows))
        check(cell["tsc"], rows.lab_tsc.mean())
        check(cell["sd"], rows.lab_tsc.std())
        check(cell["hdl"], rows.lab_hdl.sum())


def test_intervals_of_live_releases_cover_the_pooled_truth(heart: Consortium) -> None:
    """40 live releases of 2 cells with 4 intervals each. The intervals of a cell share noise; in the worst case they
    miss together, and then more than 16 of 80 cells miss with probability 5e-7. Intervals half as wide would miss 30%.
    """
    pooled = heart_pooled()
    truth = {
        (sex, name): float(value)
        for sex, rows in pooled.groupby("sex")
        for name, value in {
            "n": len(rows),
            "age": rows.age.mean(),
            "sd": rows.age.std(),
            "chol": rows.chol.mean(),
        }.items()
    }
    covered = []
    with heart.session() as session:
        for _number in range(40):
            result = session.query(
                "SELECT sex, COUNT(*) AS n, AVG(age) AS age, STDDEV(age) AS sd, AVG(chol) AS chol"
                " FROM heart GROUP BY sex",
                epsilon=2,
            )
            for (sex, name), value in truth.items():
                found = result.estimate(name, sex=str(sex))
                covered.append(found.low <= value <= found.high)
    assert len(covered) == 320
    assert sum(covered) >= 320 - 4 * 16


def test_the_noise_of_a_live_release_has_the_stated_variance(heart: Consortium) -> None:
    """4,000 bins of one release: outside the chi-square range with probability 1e-6. With one share missing of four the
    variance would be 25% less, 12 standard deviations off.
    """
    pooled, bins, rho = heart_pooled(), 4000, 0.25
    with heart.session() as session:
        found = session.query(f"SELECT HISTOGRAM(age, {bins}) AS h FROM heart", rho=rho).to_pandas()["h"]
    truth = np.histogram(pooled.age, bins=np.linspace(0, 120, bins + 1))[0]
    survivors, colluders = 4, 1
    variance = 1 / (2 * rho) * survivors / (survivors - colluders)
    squares = float(((found.to_numpy() - truth) ** 2).sum() / variance)
    assert stats.chi2.ppf(5e-7, bins) < squares < stats.chi2.ppf(1 - 5e-7, bins)


def test_when_an_agent_vanishes_the_noise_is_that_of_those_who_stay(
    heart: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, with three survivors of four: a layer less comes off, and 3/2 of the curator's variance is left."""
    original = Responder.upload

    def upload(responder: Responder, active: ActiveRound) -> Iterator[bytes]:
        if responder._me == "va":
            raise ServiceError("it was unplugged")
        return original(responder, active)

    monkeypatch.setattr(Responder, "upload", upload)
    pooled, bins, rho = heart_pooled(without="va"), 4000, 0.25
    with heart.session() as session:
        result = session.query(f"SELECT HISTOGRAM(age, {bins}) AS h FROM heart", rho=rho)
    assert sorted(result.survivors) == ["cleveland", "hungarian", "switzerland"]
    truth = np.histogram(pooled.age, bins=np.linspace(0, 120, bins + 1))[0]
    squares = float(((result.to_pandas()["h"].to_numpy() - truth) ** 2).sum() * 2 * rho * 2 / 3)
    assert stats.chi2.ppf(5e-7, bins) < squares < stats.chi2.ppf(1 - 5e-7, bins)

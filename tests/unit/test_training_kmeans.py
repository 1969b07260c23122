"""Clusters from sums: scikit-learn's without noise; under it intervals that cover, or a word that nothing is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness.jobs import run

from queries.errors import QueryError
from queries.schema import from_toml
from queries.training import clusters
from queries.training.job import Job, make_job
from queries.training.kmeans import Clustering
from queries.training.options import Clusters
from queries.training.plan import JobPlan, make_job_plan

DATASET = from_toml(
    'name = "d"\nmax_persons = 10000\n[columns.x]\ntype = "number"\nlower = 0\nupper = 10\n'
    '[columns.y]\ntype = "number"\nlower = -5\nupper = 5\n'
    '[columns.z]\ntype = "number"\nlower = 7\nupper = 9\n'
    '[columns.k]\ntype = "category"\ncategories = ["a", "b"]\n'
    '[columns.m]\ntype = "category"\ncategories = ["p", "q", "r"]\n'
)
CENTRES = np.array([[2.0, -3.0], [8.0, 0.0], [4.0, 4.0]])


def people(rows: int = 3000) -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    kind = random.choice(3, rows, p=[0.5, 0.3, 0.2])
    x, y = (CENTRES[kind] + random.normal(0, 0.7, (rows, 2))).T
    return {"x": np.clip(x, 0, 10), "y": np.clip(y, -5, 5), "z": np.full(rows, 8.25)}


def mixed(rows: int = 2000) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    kind = random.integers(0, 2, rows)
    key = np.where(random.random(rows) < 0.9, 2.0 * kind, 1.0)
    return {"x": np.clip(3 + 4 * kind + random.normal(0, 1, rows), 0, 10), "m": key}


def asked(count: int = 3, rounds: int = 10, columns: str = "xy", **more: Any) -> Job:
    terms = tuple((name,) for name in columns)
    how = Clusters(count, more.pop("seed", 0))
    return make_job(DATASET, "kmeans", more.pop("label", ""), terms, rounds=rounds, clusters=how, **more)


def planned(job: Job, rho: float = 1.0) -> JobPlan:
    return make_job_plan(job, DATASET, int(rho * 1e9))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_noise_it_is_lloyd_s(seed: int) -> None:
    sk = pytest.importorskip("sklearn.cluster")
    plan = planned(asked(seed=seed, rounds=40))
    found = clusters.fit(plan, run(plan, people()))
    assert isinstance(plan.statistic, Clustering)
    x = plan.statistic.design.matrix(people())
    start = plan.statistic.initial().reshape(3, 2)
    theirs = sk.KMeans(3, init=start, n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(x)
    assert found.converged
    assert found.theta.reshape(3, 2) == pytest.approx(theirs.cluster_centers_, abs=1e-9)
    assert found.inertia == pytest.approx(theirs.inertia_, rel=1e-9)
    assert [cluster.size for cluster in found.clusters] == pytest.approx(np.bincount(theirs.labels_), abs=1e-6)
    assert plan.statistic.predict(people(), found.theta).tolist() == theirs.labels_.tolist()


def test_centres_and_errors_in_the_data_s_units() -> None:
    plan = planned(asked(rounds=40))
    found = clusters.fit(plan, run(plan, people()))
    label = plan.statistic.predict(people(), found.theta)
    for number, cluster in enumerate(found.clusters):
        for column, part, width in zip("xy", cluster.centre, cluster.width, strict=True):
            mine = people()[column][label == number]
            assert part.name == f"{number}: {column}"
            assert part.value == pytest.approx(mine.mean(), abs=1e-6)
            assert width == pytest.approx(mine.std(), abs=1e-5)
            assert part.standard_error == pytest.approx(mine.std() / np.sqrt(len(mine)), rel=1e-4)
            assert part.noise_error == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_over_categories_it_is_lloyd_s_on_an_indicator_of_every_key(seed: int) -> None:
    sk = pytest.importorskip("sklearn.cluster")
    values = mixed()
    plan = planned(asked(2, seed=seed, rounds=40, columns="xm"))
    assert isinstance(plan.statistic, Clustering)
    assert plan.statistic.design.names == ("x", "m=p", "m=q", "m=r")
    by_hand = np.stack([values["x"] / 5 - 1, *(values["m"] == code for code in range(3))], axis=1)
    assert plan.statistic.design.matrix(values) == pytest.approx(by_hand)
    start = plan.statistic.initial().reshape(2, 4)
    assert start[:, 1:].min() >= 0
    found = clusters.fit(plan, run(plan, values))
    theirs = sk.KMeans(2, init=start, n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(by_hand)
    assert found.theta.reshape(2, 4) == pytest.approx(theirs.cluster_centers_, abs=1e-9)
    assert found.inertia == pytest.approx(theirs.inertia_, rel=1e-9)
    for number, cluster in enumerate(found.clusters):
        mine = values["m"][theirs.labels_ == number]
        shares = [(mine == code).mean() for code in range(3)]
        assert [part.value for part in cluster.centre[1:]] == pytest.approx(shares, abs=1e-6)
        errors = [np.sqrt(share * (1 - share) / len(mine)) for share in shares]
        assert [part.standard_error for part in cluster.centre[1:]] == pytest.approx(errors, abs=1e-5)


def test_clusters_of_categories_under_noise() -> None:
    """Nine tenths of a cluster are of one key: found again at a cost of 2 by 2,000 persons, whatever the noise."""
    plan = planned(asked(2, columns="xm"), rho=2.0)
    found = clusters.fit(plan, run(plan, mixed(), noise=True, seed=3))
    assert all(cluster.clear for cluster in found.clusters)
    largest = sorted(max(part.value for part in cluster.centre[1:]) for cluster in found.clusters)
    assert largest[0] > 0.8
    assert found.theta.reshape(2, 4)[:, 1:].min() >= 0


def test_intervals_cover_the_pooled_clusters() -> None:
    """60 jobs, 9 intervals each: at most 75 misses of 27 expected; more have probability below 10^-6.

    Misses of one job are not independent (sizes and centres share noise), so the bound leaves as much again.
    """
    plan = planned(asked(), rho=2.0)
    values = people(1500)
    truth = clusters.fit(plan, run(plan, values))
    missed = exact = 0
    for seed in range(60):
        found = clusters.fit(plan, run(plan, values, noise=True, seed=seed))
        for theirs, ours in zip(truth.clusters, found.clusters, strict=True):
            missed += not ours.size_low <= theirs.size <= ours.size_high
            for a, b in zip(theirs.centre, ours.centre, strict=True):
                missed += not b.pooled_low <= a.value <= b.pooled_high
                exact += abs(a.value - b.value) < 1e-9
    assert 5 <= missed <= 75  # intervals that are far too wide never miss
    assert exact == 0


def test_empty_clusters_stay_and_say_so() -> None:
    plan = planned(asked(count=20, rounds=5), rho=0.2)
    found = clusters.fit(plan, run(plan, people(200), noise=True))
    drowned = [cluster for cluster in found.clusters if not cluster.clear]
    assert drowned
    assert all(cluster.size < 200 for cluster in drowned)
    assert np.abs(found.theta).max() <= 1


def test_a_constant_column_takes_no_part() -> None:
    with_it, without = planned(asked(columns="xyz", rounds=40)), planned(asked(rounds=40))
    one, other = (clusters.fit(plan, run(plan, people())) for plan in (with_it, without))
    assert sorted(c.size for c in one.clusters) == pytest.approx(sorted(c.size for c in other.clusters), abs=1e-3)
    assert all(c.width[2] < 1e-5 and c.centre[2].value == pytest.approx(8.25) for c in one.clusters)


def test_first_centres_are_apart_and_know_no_data() -> None:
    statistic = planned(asked(count=9)).statistic
    assert isinstance(statistic, Clustering)
    first = statistic.initial().reshape(9, 2)
    apart = np.linalg.norm(first[:, None] - first[None], axis=2)[np.triu_indices(9, 1)].min()
    assert apart > 0.5
    assert np.abs(first).max() <= 1 - apart / 2 + 1e-9  # as far from the bounds as from half of each other
    assert np.array_equal(statistic.initial(), first.reshape(-1))
    other = planned(asked(count=9, seed=1)).statistic
    assert isinstance(other, Clustering)
    assert not np.array_equal(statistic.initial(), other.initial())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"count": 1}, "2 to 100 clusters"),
        ({"count": 101}, "2 to 100 clusters"),
        ({"seed": -1}, "seed"),
        ({"label": "y", "columns": "x"}, "no label"),
        ({"ridge": 0.1}, "no ridge"),
        ({"event": "k"}, "only the cox model"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_bad_clusterings_are_refused(what: dict[str, Any], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        asked(**what)


def test_products_and_clusters_elsewhere_are_refused() -> None:
    with pytest.raises(QueryError, match="no products"):
        make_job(DATASET, "kmeans", "", (("x", "y"),), clusters=Clusters(2))
    with pytest.raises(QueryError, match="how many clusters"):
        make_job(DATASET, "kmeans", "", (("x",),))
    with pytest.raises(QueryError, match="how many clusters"):
        make_job(DATASET, "linear", "y", (("x",),), clusters=Clusters(2))

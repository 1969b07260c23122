"""From the releases of a clustering to its centres, and what is known of them: sizes, errors, widths.

Must not know: data, the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from queries.errors import QueryError
from queries.estimate import Z95
from queries.training.design import Floats
from queries.training.kmeans import Clustering
from queries.training.newton import Coefficient, Released
from queries.training.plan import JobPlan

_CLEAR = 4.0
"""A cluster of fewer persons than so many standard deviations of the noise stays where it was."""
_EXACT = 1e-7


@dataclass(frozen=True)
class Cluster:
    """A cluster: how many persons (noisy, with a 95% interval), its centre in the data's units, and its width.

    `centre` has one entry a number, and one a key of a category: the share of the cluster's persons that have it. Its
    standard errors and intervals are about the population that the persons of the cluster were drawn from, with the
    boundaries between clusters as they are. `width` is the standard deviation of each column within the cluster. Where
    the noise drowns the cluster `clear` is False, and its centre says nothing.
    """

    size: float
    size_low: float
    size_high: float
    centre: tuple[Coefficient, ...]
    width: tuple[float, ...]
    clear: bool


@dataclass(frozen=True)
class ClusterFit:
    """The clusters. `theta` are the centres on the unit scale; `inertia` is the sum of squared distances there.

    `losses` has the inertia of each round. Where it has not `converged` a centre still moved in the last round, further
    than the noise explains.
    """

    theta: Floats
    clusters: tuple[Cluster, ...]
    inertia: float
    converged: bool
    losses: tuple[float, ...]


def clustering_of(plan: JobPlan) -> Clustering:
    """Return the statistic of a clustering."""
    statistic = plan.statistic
    if not isinstance(statistic, Clustering):
        raise TypeError("this job finds no clusters")
    return statistic


def advance(plan: JobPlan, release: Released) -> Floats:
    """Return the centres after a release: noisy means, inside the bounds; those of clusters that noise drowns stay."""
    statistic = clustering_of(plan)
    counts, sums, _ = statistic.read(release.sums)
    centres = release.theta.reshape(statistic.how.count, statistic.columns).copy()
    clear = _clear(statistic, counts, release.deviation)
    centres[clear] = np.clip(sums[clear] / counts[clear, None], statistic.lower, 1.0)
    return centres.reshape(-1)


def inertia(plan: JobPlan, release: Released) -> float:
    """Return the sum of squared distances to the means of their clusters, on the unit scale, as the noise left it."""
    statistic = clustering_of(plan)
    counts, sums, squares = statistic.read(release.sums)
    clear = _clear(statistic, counts, release.deviation)
    return float((squares[clear] - sums[clear] ** 2 / counts[clear, None]).sum())


def fit(plan: JobPlan, releases: Sequence[Released]) -> ClusterFit:
    """Return the clusters that a job's releases give: the mean of the last, at most half, that noise alone tells apart.

    Raise QueryError without any release.
    """
    if not releases:
        raise QueryError("the job ended before its first round: there is no model")
    statistic = clustering_of(plan)
    kept: list[Released] = []
    for release in reversed(releases[len(releases) - max(1, len(releases) // 2) :]):
        if not _settled(plan, release):
            break
        kept.insert(0, release)
    converged = bool(kept)
    kept = kept or [releases[-1]]
    counts, sums, squares = (
        np.mean(part, axis=0) for part in zip(*(statistic.read(r.sums) for r in kept), strict=True)
    )
    deviation = kept[-1].deviation / sqrt(len(kept))
    clear = _clear(statistic, counts, deviation)
    centres = kept[-1].theta.reshape(statistic.how.count, statistic.columns).copy()
    centres[clear] = np.clip(sums[clear] / counts[clear, None], statistic.lower, 1.0)
    noise = statistic.deviations(deviation)[:2]
    clusters = tuple(
        replace(_cluster(statistic, number, centres[number], (counts[number], squares[number]), noise), clear=sound)
        for number, sound in enumerate(clear.tolist())
    )
    spread = float((squares[clear] - sums[clear] ** 2 / counts[clear, None]).sum())
    losses = tuple(inertia(plan, release) for release in releases)
    return ClusterFit(centres.reshape(-1), clusters, max(spread, 0.0), converged, losses)


def _clear(statistic: Clustering, counts: Floats, deviation: float) -> NDArray[np.bool_]:
    return np.asarray(counts > max(_CLEAR * statistic.deviations(deviation)[0], 0.5))


def _settled(plan: JobPlan, release: Released) -> bool:
    """Whether no centre moved further than the noise of two rounds explains, once in a thousand rounds."""
    statistic = clustering_of(plan)
    counts, _, _ = statistic.read(release.sums)
    clear = _clear(statistic, counts, release.deviation)
    if not clear.any():
        return False
    shape = statistic.how.count, statistic.columns
    after = advance(plan, release).reshape(shape)[clear]
    step = after - release.theta.reshape(shape)[clear]
    noise_count, noise_sum, _ = statistic.deviations(release.deviation)
    variance = (noise_sum**2 + (after * noise_count) ** 2) / counts[clear, None] ** 2
    return bool((step**2 / (2 * variance + _EXACT**2)).sum() <= step.size + 3.1 * sqrt(2 * step.size) + 4)


def _cluster(
    statistic: Clustering,
    number: int,
    centre: Floats,
    moments: tuple[float, Floats],
    deviations: tuple[float, float],
) -> Cluster:
    """Return a cluster in the data's units, from its count and sums of squares and the noise in count and sums."""
    count, squares = moments
    noise_count, noise_sum = deviations
    mids, halves = statistic.units.T
    persons = max(float(count), 1.0)
    variance = np.clip(squares / persons - centre**2, 0.0, 1.0)
    noise = np.sqrt(noise_sum**2 + (centre * noise_count) ** 2) / persons * halves
    error = np.sqrt(variance / persons * halves**2 + noise**2)
    value = mids + centre * halves
    return Cluster(
        size=float(count),
        size_low=float(count - Z95 * noise_count),
        size_high=float(count + Z95 * noise_count),
        centre=tuple(
            Coefficient(f"{number}: {name}", v, e, v - Z95 * e, v + Z95 * e, n, v - Z95 * n, v + Z95 * n)
            for name, v, e, n in zip(
                statistic.design.names, value.tolist(), error.tolist(), noise.tolist(), strict=True
            )
        ),
        width=tuple((np.sqrt(variance) * halves).tolist()),
        clear=True,
    )

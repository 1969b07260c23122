"""From the releases of a boosting job to its trees: splits from noisy histograms, leaves from noisy sums.

A function of each release alone. Must not know: data, the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from queries.errors import QueryError
from queries.training.boosting import (
    CODES,
    NO_SPLIT,
    WEIGHT_COUNT,
    WEIGHT_CURVATURE,
    WEIGHT_GRADIENT,
    WEIGHT_LOSS,
    Boosting,
    Codes,
)
from queries.training.design import Floats
from queries.training.newton import Released
from queries.training.plan import JobPlan

_CLEAR = 3.0
"""Both sides of a split hold more curvature than so many standard deviations of its noise."""
_LEAF_CLEAR = 2.0
_LARGEST_LEAF = 4.0


@dataclass(frozen=True)
class Grown:
    """The trees of a job.

    `losses` has the mean loss of a person at the model that each round was asked at, as the noise left it; `gains` how
    much of it the splits on each column took away, as histograms said: empty for random splits.
    """

    theta: Floats
    trees: int
    losses: tuple[float, ...]
    gains: dict[str, float]


def boosting_of(plan: JobPlan) -> Boosting:
    """Return the statistic of a boosting job."""
    statistic = plan.statistic
    if not isinstance(statistic, Boosting):
        raise TypeError("this job grows no trees")
    return statistic


def advance(plan: JobPlan, release: Released) -> Floats:
    """Return the model after a release: one more level is split, or a tree has its leaves."""
    return _step(boosting_of(plan), release)[0]


def loss(plan: JobPlan, release: Released) -> float:
    """Return the mean loss of a person at the model that a release was asked at, as the noise left it."""
    total, count = release.sums[-2] / WEIGHT_LOSS, release.sums[-1] / WEIGHT_COUNT
    return float(total * boosting_of(plan).scales[2] / max(float(count), 1.0))


def fit(plan: JobPlan, releases: Sequence[Released]) -> Grown:
    """Return the trees that a job's releases give. Raise QueryError where not one is complete."""
    statistic = boosting_of(plan)
    gains = dict.fromkeys(statistic.columns, 0.0) if statistic.how.splits == "histogram" else {}
    theta = statistic.initial()
    for release in releases:
        theta, gained = _step(statistic, release)
        for column, gain in gained:
            gains[statistic.columns[column]] += gain
    complete, _ = statistic.stage(theta)
    if not complete:
        raise QueryError("the job ended before its first tree was complete: there is no model")
    return Grown(theta, complete, tuple(loss(plan, release) for release in releases), gains)


def _step(statistic: Boosting, release: Released) -> tuple[Floats, list[tuple[int, float]]]:
    """Return the model after a release, and (column, gain) of each split that it found."""
    theta = release.theta.copy()
    tree, level = statistic.stage(theta)
    if tree >= statistic.how.count:
        raise QueryError("all trees are grown: no round can follow")
    gained: list[tuple[int, float]] = []
    if level < statistic.how.depth:
        codes, gained = _splits(statistic, release, level)
        statistic.put_splits(theta, tree, level, codes)
    else:
        statistic.put_leaves(theta, tree, _leaves(statistic, release))
    theta[0] += 1
    return theta, gained


def _read(statistic: Boosting, release: Released, cells: int, share: float) -> tuple[Floats, Floats, float]:
    """Return gradients and curvatures, each (cells, outputs), and the noise's standard deviation in a curvature."""
    pairs = release.sums[: 2 * statistic.outputs * cells].reshape(cells, 2, statistic.outputs)
    scale_g = statistic.scales[0] * share / WEIGHT_GRADIENT
    scale_h = statistic.scales[1] * share / WEIGHT_CURVATURE
    return pairs[:, 0] * scale_g, pairs[:, 1] * scale_h, release.deviation * scale_h


def _leaves(statistic: Boosting, release: Released) -> Floats:
    """Newton steps, one a leaf and output; one that the noise drowns says nothing."""
    gradient, curvature, noise = _read(statistic, release, statistic.leaves, 1.0)
    weight = np.maximum(curvature, 0.0) + _smooth(statistic)
    value = np.where(curvature > _LEAF_CLEAR * noise, -gradient / weight, 0.0)
    return np.clip(value, -_LARGEST_LEAF, _LARGEST_LEAF)


def _splits(statistic: Boosting, release: Released, level: int) -> tuple[Codes, list[tuple[int, float]]]:
    width = sum(statistic.bins)
    nodes = 2**level
    gradient, curvature, noise = _read(statistic, release, nodes * width, sqrt(len(statistic.columns)))
    gradient, curvature = (part.reshape(nodes, width, statistic.outputs) for part in (gradient, curvature))
    codes = np.full(nodes, NO_SPLIT, dtype=np.int64)
    gained = []
    for node in range(nodes):
        best, codes[node] = _best(statistic, gradient[node], curvature[node], noise)
        if codes[node] != NO_SPLIT:
            gained.append((int(codes[node]) // CODES, best))
    return codes, gained


def _best(statistic: Boosting, gradient: Floats, curvature: Floats, noise: float) -> tuple[float, int]:
    """Return the largest gain of any split of a node, and the split; NO_SPLIT where the noise hides all of them.

    `gradient` and `curvature` are (bins of all columns, outputs); gains of outputs add up.
    """
    # Every column's bins sum to the node's total: their mean is the least noisy.
    all_g, all_h = (part.sum(axis=0) / len(statistic.columns) for part in (gradient, curvature))
    smooth = _smooth(statistic)

    def gain_of(g: Floats, h: Floats) -> Floats:
        total: Floats = (g**2 / (np.maximum(h, 0.0) + smooth)).sum(axis=-1)
        return total

    whole = gain_of(all_g, all_h)
    best, code = 0.0, NO_SPLIT
    for column, (start, bins) in enumerate(zip(statistic.offsets, statistic.bins, strict=True)):
        g, h = gradient[start : start + bins], curvature[start : start + bins]
        if statistic.categorical[column]:
            right_g, right_h, parts = g, h, np.ones(bins)
        else:  # above each cut but the last
            right_g, right_h = (np.cumsum(part[::-1], axis=0)[::-1][1:] for part in (g, h))
            parts = np.arange(bins - 1.0, 0.0, -1.0)
        left_g, left_h = all_g - right_g, all_h - right_h
        clear = np.maximum(_CLEAR * noise * np.sqrt(parts * statistic.outputs), 1e-6)
        sound = (left_h.sum(axis=1) > clear) & (right_h.sum(axis=1) > clear)
        gain = np.where(sound, gain_of(right_g, right_h) + gain_of(left_g, left_h) - whole, 0.0)
        at = int(np.argmax(gain))
        if gain[at] > best:
            best, code = float(gain[at]), column * CODES + at
    return best, code


def _smooth(statistic: Boosting) -> float:
    return max(statistic.how.smoothing * statistic.largest_curvature, 1e-9)

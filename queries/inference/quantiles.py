"""Quantiles from a tree of noisy counts, with intervals that use no more than the counts' own noise.

Counts are made consistent by least squares, which for a tree takes one pass up and one down (Hay, Rastogi, Miklau and
Suciu 2010, section 4.2, here for any number of children). The variance of every cumulative count follows from the same
recursion exactly. A quantile's interval inverts a test of each edge, within a window that tests of a few edges at once
leave open; docs/privacy.md has the argument. Must not know: schemas, what the counts are of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from queries.inference.forms import Floats
from queries.quantiles import Tree

_MISSED, _SHUT_OUT = 0.0225, 0.0025
"""How often, at most, an interval's end and its window's may be beyond the quantile: on both sides 5% in all."""
_WINDOW_EDGES = 256
"""The window is found on the finest level of no more nodes: more edges would each need a larger deviation."""
_ROUNDING = 1e-6  # far more than consistent counts err by in floating point, far less than a row


@dataclass(frozen=True, slots=True)
class Cumulative:
    """Rows below each edge of the leaves, (cells, leaves + 1); `deviation(q)` is how noisy below - q total is."""

    tree: Tree
    below: Floats
    slope: Floats
    rest: Floats
    total_variance: float
    noise: float
    pure: bool

    def reach(self, missed: float) -> float:
        """Return how many standard deviations noise exceeds, on one side, with this probability at most.

        Sums of independent noise of the Laplace kind exceed so many no oftener than a single one.
        """
        return -log(2 * missed) / sqrt(2) if self.pure else NormalDist().inv_cdf(1 - missed)

    def deviation(self, q: float) -> Floats:
        """Return the standard deviation of `below - q total`, (leaves + 1,)."""
        variance = self.rest + (self.slope - q) ** 2 * self.total_variance
        return np.asarray(np.sqrt(self.noise * np.maximum(variance, 0.0)))


def cumulative(tree: Tree, levels: Sequence[Floats], noise: Sequence[float], *, pure: bool = False) -> Cumulative:
    """Return the consistent cumulative counts of every cell.

    `levels` are the noisy counts of the tree's levels, (cells, nodes) each; `noise` is the variance in each level's,
    of the Laplace kind where `pure`.
    """
    depth = len(levels)
    unit = noise[-1]  # the leaves'; all variances below are in units of it
    each = [variance / unit if unit > 0 else 1.0 for variance in noise]
    # Up: what a node's subtree alone says of its count, and the variance of that.
    subtree, own = [levels[-1]], [np.ones(levels[-1].shape[1])]
    sums: list[tuple[Floats, Floats]] = []
    for counts, alone in zip(reversed(levels[:-1]), reversed(each[:-1]), strict=True):
        starts = np.arange(0, own[0].size, tree.branches)
        total, variance = np.add.reduceat(subtree[0], starts, axis=1), np.add.reduceat(own[0], starts)
        sums.insert(0, (total, variance))
        weight = variance / (alone + variance)
        subtree.insert(0, weight * counts + (1 - weight) * total)
        own.insert(0, alone * weight)
    # Down: children share what their sum lacks, each by its variance.
    final = subtree[0]
    for level in range(1, depth):
        total, variance = sums[level - 1]
        parent = np.arange(own[level].size) // tree.branches
        final = subtree[level] + (own[level] / variance[parent]) * (final - total)[:, parent]
    below = np.concatenate([np.zeros((final.shape[0], 1)), np.cumsum(final, axis=1)], axis=1)
    return Cumulative(tree, below, *_variances(tree, own), float(unit), pure)


def _variances(tree: Tree, own: Sequence[Floats]) -> tuple[Floats, Floats, float]:
    """Return for every edge how the count below it depends on the total: slope, variance at a given total; and its own.

    Given a node's count, its children vary by their subtrees' variances p with a fixed sum: a part A of them has slope
    p(A) / p and variance p(A) - p(A)^2 / p. The edge cuts one child, which passes on its slope and variance.
    """
    leaves = own[-1].size
    place = np.arange(leaves)  # the node that begins at the edge, or holds it
    slope, rest = np.zeros(leaves), np.zeros(leaves)
    for variance in reversed(own):
        before = np.concatenate([[0.0], np.cumsum(variance)])
        top = variance is own[0]
        first = np.zeros_like(place) if top else place // tree.branches * tree.branches
        last = np.full_like(place, variance.size) if top else np.minimum(first + tree.branches, variance.size)
        left, cut, all_ = before[place] - before[first], variance[place], before[last] - before[first]
        mean, square = left + slope * cut, left + slope * slope * cut
        slope, rest = mean / all_, rest + square - mean * mean / all_
        place = place // tree.branches
    return np.append(slope, 1.0), np.append(rest, 0.0), float(own[0].sum())


def quantile(counts: Cumulative, q: float) -> tuple[Floats, Floats, Floats]:
    """Return (value, low, high) of the quantile q of every cell, each (cells,).

    The value interpolates between the rows around rank q (n - 1) + 1, as numpy does, to within a leaf. For q = 0 and 1,
    which a single row decides, it is the outermost leaf beyond which the counts exceed their noise. The interval is
    from the first to the last leaf of the window that a test cannot exclude from holding these rows.
    """
    edges = np.asarray(counts.tree.levels[-1])
    starts, ends = edges[:-1], edges[:-1] if counts.tree.whole else edges[1:]
    below, total = counts.below, counts.below[:, -1:]
    # A monotone curve through counts that noise made waver: half way between its envelopes.
    envelope = np.maximum.accumulate(below, axis=1) + np.minimum.accumulate(below[:, ::-1], axis=1)[:, ::-1]
    monotone = envelope / 2
    spread, excess = counts.reach(_MISSED) * counts.deviation(q), below - q * total
    leaves = starts.size
    least, most = _window(counts, excess, q)
    fits = excess[:, 1:] >= -spread[1:] - q - _ROUNDING
    fits &= np.arange(leaves) >= least[:, None]
    first = np.where(fits.any(axis=1), fits.argmax(axis=1), 0)
    fits = excess[:, :-1] <= spread[:-1] + (1 - q) - _ROUNDING
    fits &= np.arange(leaves) < most[:, None]
    last = np.where(fits.any(axis=1), leaves - 1 - fits[:, ::-1].argmax(axis=1), leaves - 1)
    last = np.maximum(first, last)
    low, high = starts[first], ends[last]
    if q in {0.0, 1.0}:
        inside = excess[:, 1:] > spread[1:] + 0.5 if q == 0 else excess[:, :-1] < -spread[:-1] - 0.5
        outermost = inside.argmax(axis=1) if q == 0 else leaves - 1 - inside[:, ::-1].argmax(axis=1)
        where = np.where(inside.any(axis=1), outermost, (first + last) // 2)
        return np.clip((starts + (ends - starts) / 2)[where], low, high), low, high
    rank = np.maximum(q * (total[:, 0] - 1) + 1, 1.0)
    whole = np.floor(rank + _ROUNDING)
    part = np.maximum(rank - whole, 0.0)
    value = (1 - part) * _at(monotone, starts, ends, whole) + part * _at(monotone, starts, ends, whole + 1)
    return np.clip(np.where(total[:, 0] > 0, value, (low + high) / 2), low, high), low, high


def _window(counts: Cumulative, excess: Floats, q: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the edges, (cells,) each, between which the quantile lies: beyond them, tests of all edges at once say no.

    If the quantile is left of an edge, at least q total - q rows are below it; if right, at most q total + 1 - q.
    """
    coarse = next(level for level in reversed(counts.tree.levels) if len(level) <= _WINDOW_EDGES + 1)
    edges = np.searchsorted(counts.tree.levels[-1], coarse[1:-1])
    if edges.size == 0:
        return np.zeros(len(excess), np.intp), np.full(len(excess), excess.shape[1] - 1, np.intp)
    reach = counts.reach(_SHUT_OUT / edges.size) * counts.deviation(q)[edges] + _ROUNDING
    beyond = excess[:, edges] + q < -reach
    least = np.where(beyond.any(axis=1), edges[edges.size - 1 - beyond[:, ::-1].argmax(axis=1)], 0)
    short = excess[:, edges] - (1 - q) > reach
    most = np.where(short.any(axis=1), edges[short.argmax(axis=1)], excess.shape[1] - 1)
    return least, most


def _at(below: Floats, starts: Floats, ends: Floats, rank: Floats) -> Floats:
    """Return where the row of a rank lies, as if the rows of a leaf were evenly spread in it."""
    rank = np.minimum(rank, np.maximum(below[:, -1], 1.0))
    leaf = np.minimum((below[:, 1:] < (rank - _ROUNDING)[:, None]).sum(axis=1), starts.size - 1)
    cells = np.arange(below.shape[0])
    before, within = below[cells, leaf], below[cells, leaf + 1] - below[cells, leaf]
    share = np.clip((rank - 0.5 - before) / np.where(within > 0, within, 1.0), 0.0, 1.0)
    return np.asarray(starts[leaf] + share * (ends[leaf] - starts[leaf]))

"""The tree of counts that quantiles are read from: which leaves a column's bounds are cut into, and their parents.

A row adds 1 to one node on every level, so a tree of h levels has squared sensitivity h; the root, being the sum of its
children, is left out. Leaves are the values themselves where a column holds few whole numbers, else 4,096 of equal
width. Every level's edges are among those of the next, so that its counts are exact sums of finer ones. Must not know:
data, noise, how quantiles are inferred (`inference.quantiles` does).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from queries.schema import Numeric

MOST_LEAVES = 4096
BRANCHES = range(4, 17)


@dataclass(frozen=True, slots=True)
class Tree:
    """A hierarchy over a column's bounds. `levels` hold edges, coarse first; the last level's bins are the leaves.

    Node i of a level has the nodes from i * branches on below it, at most `branches` of them. `whole`: each leaf
    is one whole number, its left edge.
    """

    levels: tuple[tuple[float, ...], ...]
    branches: int
    whole: bool


@lru_cache(maxsize=256)
def tree_of(kind: Numeric) -> Tree:
    """Return the tree of a numeric column: a function of its public bounds alone."""
    values = kind.upper - kind.lower + 1 if kind.integer else float("inf")
    if values <= MOST_LEAVES and kind.lower + values > kind.upper:
        edges = tuple(kind.lower + float(place) for place in range(int(values) + 1))
        if all(low < high for low, high in pairwise(edges)):
            return _tree(edges, whole=True)
    leaves = MOST_LEAVES
    while True:
        inner = (kind.lower * (1 - place / leaves) + kind.upper * (place / leaves) for place in range(1, leaves))
        edges = (kind.lower + 0.0, *inner, kind.upper + 0.0)  # -0.0 and 0.0 are one number
        if all(low < high for low, high in pairwise(edges)):
            return _tree(edges, whole=False)
        leaves //= 2  # bounds so narrow that floats between them run out


def _tree(edges: tuple[float, ...], *, whole: bool) -> Tree:
    """Return the tree over some leaves with the branching that makes sums of its nodes least noisy.

    A range is a sum of some (b - 1) nodes on each of h levels, and each has a variance that grows with h (Qardaji, Yang
    and Li 2013, section 4, with h in place of h squared for Gaussian noise).
    """
    leaves = len(edges) - 1
    branches = min(BRANCHES, key=lambda b: (_height(leaves, b) ** 2 * (b - 1), -b))
    levels = [edges]
    while len(levels[0]) - 1 > branches:
        levels.insert(0, (*levels[0][:-1:branches], levels[0][-1]))
    return Tree(tuple(levels), branches, whole)


def _height(leaves: int, branches: int) -> int:
    height, size = 1, branches
    while size < leaves:
        height, size = height + 1, size * branches
    return height

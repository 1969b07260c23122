"""What a job says of a model that is no regression, and of whom it asks: values, with what may be said of each.

Must not know: data, the wire, how models are found.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from queries.errors import QueryError

Splits: TypeAlias = Literal["random", "histogram"]
SPLITS: tuple[Splits, ...] = get_args(Splits)
MAX_CLUSTERS = 100
MAX_TREES = 1000
MAX_DEPTH = 8
MAX_BINS = 256
MAX_SEED = 2**32 - 1
MAX_INSTITUTIONS = 1000
MAX_BLOCKS = 1000
MAX_BLOCK = 16_000_000
_NAME = 100
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Clusters:
    """How "kmeans" divides persons: into `count` clusters, from centres that follow from the public `seed`."""

    count: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Package:
    """A model from outside the catalogue: a package that stewards installed, by the name of its entry point.

    `sha256` is the hex digest of its wheel. `blocks` say how many numbers it has, in order, and where they begin: of
    each block's (count, spread) evenly drawn from -spread to spread by the job's public seed.
    """

    name: str
    sha256: str
    blocks: tuple[tuple[int, float], ...]

    @property
    def width(self) -> int:
        """How many numbers the model has."""
        return sum(count for count, _ in self.blocks)


def check_package(package: Package) -> None:
    """Raise QueryError where a package is named in an impossible way."""
    if not _PACKAGE.fullmatch(package.name):
        raise QueryError("a package is named by letters, digits, dots, - and _", hint='package = "tiny-net"')
    if not _SHA256.fullmatch(package.sha256):
        raise QueryError("a package is pinned by the SHA-256 of its wheel", hint="64 hex digits: sha256sum X.whl")
    if not 1 <= len(package.blocks) <= MAX_BLOCKS or not all(
        1 <= count <= MAX_BLOCK and math.isfinite(spread) and 0 <= spread <= 1000 for count, spread in package.blocks
    ):
        raise QueryError(
            f"a package's model has 1 to {MAX_BLOCKS:,} blocks of numbers, each beginning within 0 to 1000 of 0",
            hint="blocks = [[1024, 0.1], [10, 0.0]], as its package says",
        )


@dataclass(frozen=True, slots=True)
class Trees:
    """How "boosting" grows: `count` trees, each `depth` levels of splits, one after the other on what is left.

    Numbers are cut into `bins` equal parts of their published bounds; a category's keys are its parts. With "random"
    splits a tree's questions follow from the public `seed` and one round fills its leaves; with "histogram" each level
    takes a round of its own that finds the questions, and another one fills the leaves. `learning_rate` shrinks every
    tree; `smoothing` is added to the curvature of a leaf, so that small ones say little.
    """

    count: int
    depth: int
    bins: int = 16
    splits: Splits = "random"
    learning_rate: float = 0.3
    smoothing: float = 1.0
    seed: int = 0

    @property
    def rounds_each(self) -> int:
        """How many rounds a tree takes."""
        return 1 if self.splits == "random" else self.depth + 1

    @property
    def rounds(self) -> int:
        """How many rounds all trees take."""
        return self.count * self.rounds_each


def check_clusters(how: Clusters) -> None:
    """Raise QueryError where the clusters cannot be found."""
    if not 2 <= how.count <= MAX_CLUSTERS:
        raise QueryError(f"a clustering has 2 to {MAX_CLUSTERS} clusters", hint="clusters = 4")
    _check_seed(how.seed)


def check_trees(how: Trees) -> None:
    """Raise QueryError where the trees cannot be grown."""
    if how.splits not in SPLITS:
        raise QueryError("trees are split in an unknown way", hint=" or ".join(f'splits = "{each}"' for each in SPLITS))
    for name, value, low, high in (
        ("trees", how.count, 1, MAX_TREES),
        ("depth", how.depth, 1, MAX_DEPTH),
        ("bins", how.bins, 2, MAX_BINS),
        ("learning_rate", how.learning_rate, 1e-4, 1.0),
        ("smoothing", how.smoothing, 0.0, 1e6),
    ):
        if not (math.isfinite(value) and low <= value <= high):
            raise QueryError(f"{name} must be from {low:g} to {high:g}")
    _check_seed(how.seed)


def check_institutions(institutions: tuple[str, ...], fraction: float) -> None:
    """Raise QueryError unless this says whom each round asks: these, all, or a share of either drawn every round."""
    if institutions != tuple(sorted(set(institutions))) or not all(
        0 < len(name) <= _NAME and name.isprintable() for name in institutions
    ):
        raise QueryError("the institutions of a job are names, each once, in order", hint="make the job with make_job")
    if len(institutions) > MAX_INSTITUTIONS:
        raise QueryError(f"a job names at most {MAX_INSTITUTIONS:,} institutions", hint="leave them out to ask all")
    if not (math.isfinite(fraction) and 0 <= fraction <= 1):
        raise QueryError("fraction must be from 0 to 1", hint="0.5 asks half of the institutions in each round")


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise QueryError(f"seed must be from 0 to {MAX_SEED}")

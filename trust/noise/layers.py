"""The part of an institution's noise that a round may take off: what agents add, and what the coordinator removes.

Layer i of a share is drawn under a key of its own, so it can be drawn again by whoever is given the key. Which keys a
round opens, and why what is left is enough: docs/secure-aggregation.md, docs/noise.md. Must not know: how keys are made
and opened.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from trust.noise import gaussian
from trust.noise.stream import Stream


def draw(length: int, variances: Sequence[Fraction], keys: Sequence[bytes]) -> NDArray[np.int64]:
    """Return the sum of one institution's layers: `length` integers, a function of variances and keys.

    `variances` are in squared lattice steps; there may be more of them than keys, whose layers come first.
    """
    total = np.zeros(length, dtype=np.int64)
    for variance, key in zip(variances, keys, strict=False):
        total += gaussian.draw(length, variance, Stream(key))
    return total


def remove(sums: NDArray[np.int64], variances: Sequence[Fraction], opened: Collection[Sequence[bytes]]) -> None:
    """Take the layers whose keys a round opened off its sums, in place; `opened` has every survivor's keys."""
    for keys in opened:
        sums -= draw(len(sums), variances, keys)

"""The part of an institution's noise that a round may take off: what agents add, and what the coordinator removes.

Layer i of a share is drawn under a key of its own, so it can be drawn again by whoever is given the key. Which keys a
round opens, and why what is left is enough: docs/secure-aggregation.md, docs/noise.md. Must not know: how keys are made
and opened.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from queries.noise import NoiseShape
from trust.noise import gaussian, laplace
from trust.noise.stream import Stream


def draw(length: int, noise: NoiseShape, keys: Sequence[bytes]) -> NDArray[np.int64]:
    """Return the sum of one institution's layers: `length` integers, a function of the noise and the keys.

    There may be more layers than keys, which are those of the first.
    """
    total = np.zeros(length, dtype=np.int64)
    for variance, key in zip(noise.layers, keys, strict=False):
        stream = Stream(key)
        if noise.scale is None:
            total += gaussian.draw(length, variance, stream)
        else:
            total += laplace.draw(length, noise.scale, noise.part(variance), stream)
    return total


def remove(sums: NDArray[np.int64], noise: NoiseShape, opened: Collection[Sequence[bytes]]) -> None:
    """Take the layers whose keys a round opened off its sums, in place; `opened` has every survivor's keys."""
    for keys in opened:
        sums -= draw(len(sums), noise, keys)

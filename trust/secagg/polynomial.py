"""A polynomial over the field of p = 2^256 - 189 at x = 1, 2, ..., n: what dealing shares mostly is in a large cohort.

Two ways to the same values: integers one point after the other, and, where there are many points, limbs of 28 bits in
numpy, all points at once. Must not know: secrets, shares, rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

PRIME = 2**256 - 189
MOST_POINTS = 2048
"""x is at most 2^11, on which the bounds in `at_many_points` rest."""
MANY_POINTS = 160
"""From here on numpy is the faster way, six times as fast at 500 points."""
_LIMB_BITS, _LIMBS = 28, 10
_MASK = (1 << _LIMB_BITS) - 1
_TOP_BITS = 256 - (_LIMBS - 1) * _LIMB_BITS  # what the highest limb holds of a value below 2^256
_EXCESS = 189  # 2^256 mod p
_STEPS = 3


def evaluate(coefficients: Sequence[int], points: int) -> list[int]:
    """Return the values at x = 1, ..., `points`, at most 2048; coefficients are field elements, highest power first."""
    return (at_many_points if points >= MANY_POINTS else at_each_point)(coefficients, points)


def at_each_point(coefficients: Sequence[int], points: int) -> list[int]:
    """Evaluate in integers, by Horner's rule; x is small, so one reduction at the end is cheaper than one a step."""
    values = []
    for x in range(1, points + 1):
        value = 0
        for coefficient in coefficients:
            value = value * x + coefficient
        values.append(value % PRIME)
    return values


def at_many_points(coefficients: Sequence[int], points: int) -> list[int]:
    """Evaluate at all points at once, by Horner's rule on limbs, carried on every third step only.

    After `_carry` a limb is below 2^28 + 2^11. Three steps multiply it by at most 2^33 and add less than 2^51 in all,
    so that 64 bits hold it.
    """
    if points > MOST_POINTS:
        raise ValueError(f"{points} points are more than {MOST_POINTS}")
    x = np.arange(1, points + 1, dtype=np.uint64)
    limbs = np.zeros((_LIMBS, points), dtype=np.uint64)
    for step, column in enumerate(_columns(coefficients), start=1):
        limbs *= x
        limbs += column
        if step % _STEPS == 0:
            _carry(limbs)
    values = [0] * points
    for row in reversed(limbs.tolist()):
        values = [(value << _LIMB_BITS) + limb for value, limb in zip(values, row, strict=True)]
    return [value % PRIME for value in values]


def _columns(coefficients: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Return every coefficient's limbs, the lowest first: shape (coefficients, 10, 1)."""
    rows = [[value >> _LIMB_BITS * i & _MASK for i in range(_LIMBS)] for value in coefficients]
    return np.array(rows, dtype=np.uint64).reshape(len(rows), _LIMBS, 1)


def _carry(limbs: npt.NDArray[np.uint64]) -> None:
    """Bring limbs of any 62 bits below 2^28 + 2^11, in place, keeping the value they stand for modulo p."""
    _carry_once(limbs)  # to below 2^28 + 2^34, but for the highest, which takes up to 2^62
    top = limbs[-1]
    over = top >> np.uint64(_TOP_BITS)
    top &= np.uint64((1 << _TOP_BITS) - 1)
    limbs[0] += (over & np.uint64(_MASK)) * np.uint64(_EXCESS)
    limbs[1] += (over >> np.uint64(_LIMB_BITS)) * np.uint64(_EXCESS)  # below 2^39
    _carry_once(limbs)


def _carry_once(limbs: npt.NDArray[np.uint64]) -> None:
    lower = limbs[:-1]
    carried = lower >> np.uint64(_LIMB_BITS)
    lower &= np.uint64(_MASK)
    limbs[1:] += carried

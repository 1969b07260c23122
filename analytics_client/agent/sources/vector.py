"""From a statement's result rows to the plan's vector, the same for every engine. Must not know: any engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from queries.errors import DataError
from queries.plan import Plan


def vector(plan: Plan, rows: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    """Place the result rows of `sql.statement` into the plan's vector. Raise DataError where a sum is too large."""
    size = len(plan.slots)
    sums = [index for index, slot in enumerate(plan.slots) if slot.kind != "bin"]
    bins = {(slot.histogram, slot.bin): index for index, slot in enumerate(plan.slots) if slot.kind == "bin"}
    scaled = [bool(plan.slots[index].measures) for index in sums]
    out = np.zeros(plan.length, dtype=np.int64)
    try:
        for part, cell, bin_, *values in rows:
            if part:
                out[cell * size + bins[part - 1, bin_]] = values[0] << plan.scale_bits
                continue
            for index, in_steps, value in zip(sums, scaled, values, strict=True):
                out[cell * size + index] = value if in_steps else value << plan.scale_bits
        for coarse, (fine, first) in plan.finer.items():  # sums of bins that were counted
            cells = out.reshape(-1, size)
            own = [bins[coarse, place] for place in range(len(first))]
            parts = [bins[fine, place] for place in range(sum(histogram == fine for histogram, _place in bins))]
            cells[:, own] = np.add.reduceat(cells[:, parts], first, axis=1)
        _raise_by_gains(plan, out.reshape(-1, size))
    except OverflowError:
        raise DataError(
            "a sum here is larger than the schema allows for", hint="compare max_persons with the data"
        ) from None
    return out


def _raise_by_gains(plan: Plan, cells: NDArray[np.int64]) -> None:
    """Multiply every sum by its slot's gain, in place. Raise OverflowError where one leaves 64 bits."""
    gains = np.array(plan.gains, dtype=np.int64)
    if (gains == 1).all():
        return
    most = np.iinfo(np.int64).max // gains
    if ((cells > most) | (cells < -most)).any():
        raise OverflowError
    cells *= gains


def lottery(salt: bytes) -> int:
    """Return the statement's parameter: 62 bits, because the engines' numbers are signed."""
    return int.from_bytes(salt[:8], "big") >> 2

"""Groups and bins that are not shown because few persons, by the noisy count, are in them.

Many houses may not publish small counts. Where a dataset's description names a smallest count, the coordinator hands
out zeros in their place, and an answer has no number there. It is done to noisy numbers, so it neither needs nor gives
any privacy: that is the noise's business, and from whoever sees what the coordinator sees nothing is hidden. Which
groups are left out depends on the noise, too: one of 6 persons may be, and one of 3 shown. Must not know: data, wire.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from queries import ir
from queries.noise import NoiseShape
from queries.plan import Plan, levels_of, persons_of

Floats = NDArray[np.float64]


def in_rows(plan: Plan, sums: NDArray[np.int64], shape: NoiseShape) -> Floats:
    """Return released sums in units of one row, (cells, slots)."""
    unit = np.array(plan.gains, dtype=np.float64) * float(1 << plan.scale_bits + shape.refine_bits)
    return np.asarray(sums.reshape(len(plan.cells), len(plan.slots)) / unit)


def few(plan: Plan, counts: Floats) -> NDArray[np.bool_]:
    """Return which cells hold too few persons to be shown, (cells,); `counts` are what `in_rows` returns."""
    if not plan.dataset.smallest_count:
        return np.zeros(len(counts), dtype=np.bool_)
    place = plan.positions[persons_of(plan.query, plan.dataset)]
    return np.asarray(counts[:, place] < plan.dataset.smallest_count)


def withhold(plan: Plan, sums: NDArray[np.int64], shape: NoiseShape) -> NDArray[np.int64]:
    """Return released sums with zeros where nothing is to be shown. Idempotent: 0 is below every smallest count.

    Bins that a quantile of the same query is read from stay: without them it would say something else.
    """
    least = plan.dataset.smallest_count
    if not least:
        return sums
    counts = in_rows(plan, sums, shape)
    aggregates = [named.aggregate for named in plan.query.aggregates]
    trees = {level for node in aggregates if isinstance(node, ir.Quantile) for level in levels_of(node, plan.dataset)}
    listed = {number for number, each in enumerate(plan.histograms) if each in aggregates and each not in trees}
    bins = np.array([slot.kind == "bin" and slot.histogram in listed for slot in plan.slots])
    hidden = few(plan, counts)[:, None] | (bins & (counts < least))
    return np.where(hidden, 0, sums.reshape(counts.shape)).reshape(-1)

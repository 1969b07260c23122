"""The exact sums of a plan over rows at hand, by numpy: what all institutions hold together, without an engine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from queries.plan import Plan, centre
from queries.slots import Joint, Slot

Columns = Mapping[str, NDArray[np.float64]]
"""Values by column, without gaps; a categorical column holds positions in its published keys."""


def exact_sums(plan: Plan, columns: Columns) -> NDArray[np.int64]:
    """Return the sums of one cell, in slot order, on the unrefined lattice. Bounds are kept by clipping."""
    rows = len(next(iter(columns.values())))
    joints = [_joint(plan, joint, columns) if isinstance(joint, Joint) else None for joint in plan.histograms]
    return np.array([_sum(plan, slot, columns, rows, joints) for slot in plan.slots], dtype=np.int64)


def _sum(plan: Plan, slot: Slot, columns: Columns, rows: int, joints: list[NDArray[np.int64] | None]) -> int:
    one = 1 << plan.scale_bits
    if slot.kind == "bin":
        joint = joints[slot.histogram]
        return one * int(joint[slot.bin] if joint is not None else _histogram(plan, slot, columns))
    factors = {"linear": (slot.column,), "square": (slot.column,) * 2}.get(slot.kind, slot.factors)
    value = np.ones(rows)
    for name in factors:
        kind = plan.dataset.numeric(str(name))
        mid, half = centre(kind)
        value = value * (np.clip(columns[str(name)], kind.lower, kind.upper) - mid) / half
    for name, key in slot.levels:
        value = np.where(columns[name] == plan.dataset.categorical(name).keys.index(key), value, 0.0)
    return int(np.rint(value * one).astype(np.int64).sum())


def _histogram(plan: Plan, slot: Slot, columns: Columns) -> int:
    histogram = plan.histograms[slot.histogram]
    values = columns[str(slot.column)]
    if isinstance(histogram, Joint) or not histogram.edges:
        return int(np.sum(values == slot.bin))
    places = np.searchsorted(histogram.edges, values, side="right") - 1
    return int(np.sum(np.clip(places, 0, len(histogram.edges) - 2) == slot.bin))


def _joint(plan: Plan, joint: Joint, columns: Columns) -> NDArray[np.int64]:
    index = np.zeros(len(columns[joint.axes[0].column]), dtype=np.int64)
    for axis in joint.axes:
        values = columns[axis.column]
        if axis.edges:
            place = np.clip(np.searchsorted(axis.edges, values, side="right") - 1, 0, axis.bins - 1)
        else:
            keys = plan.dataset.categorical(axis.column).keys
            where = {keys.index(key): number for number, group in enumerate(axis.groups) for key in group}
            place = np.array([where.get(int(value), -1) for value in values], dtype=np.int64)
        index = np.where((index < 0) | (place < 0), -1, index * axis.bins + place)
    return np.bincount(index[index >= 0], minlength=joint.bins)

"""The exact sums of a plan over rows at hand, by numpy: what all institutions hold together, without an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from queries import ir
from queries.plan import Plan, centre
from queries.slots import Joint, Slot

Columns = Mapping[str, NDArray[np.float64]]
"""Values by column, without gaps; a categorical column holds positions in its published keys."""


def exact_sums(plan: Plan, columns: Columns) -> NDArray[np.int64]:
    """Return the sums of one cell, in slot order, on the unrefined lattice. Bounds are kept by clipping."""
    rows = len(next(iter(columns.values())))
    counted = [
        _joint(plan, each, columns) if isinstance(each, Joint) else _histogram(plan, each, columns)
        for each in plan.histograms
    ]
    sums = (_sum(plan, slot, columns, rows, counted) for slot in plan.slots)
    return np.array([gain * each for gain, each in zip(plan.gains, sums, strict=True)], dtype=np.int64)


def _sum(plan: Plan, slot: Slot, columns: Columns, rows: int, counted: Sequence[NDArray[np.int64]]) -> int:
    one = 1 << plan.scale_bits
    if slot.kind == "bin":
        return one * int(counted[slot.histogram][slot.bin])
    factors = {"linear": (slot.column,), "square": (slot.column,) * 2}.get(slot.kind, slot.factors)
    value = np.ones(rows)
    for name in factors:
        kind = plan.dataset.numeric(str(name))
        mid, half = centre(kind)
        value = value * (np.clip(columns[str(name)], kind.lower, kind.upper) - mid) / half
    for name, key in slot.levels:
        value = np.where(columns[name] == plan.dataset.categorical(name).keys.index(key), value, 0.0)
    return int(np.rint(value * one).astype(np.int64).sum())


def _histogram(plan: Plan, histogram: ir.Histogram, columns: Columns) -> NDArray[np.int64]:
    values = columns[histogram.column]
    if not histogram.edges:
        return np.bincount(values.astype(np.int64), minlength=len(plan.dataset.categorical(histogram.column).keys))
    bins = len(histogram.edges) - 1
    places = np.searchsorted(histogram.edges, values, side="right") - 1
    return np.bincount(np.clip(places, 0, bins - 1), minlength=bins)


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

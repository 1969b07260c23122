"""A round by gradients at one institution: its sample, each person's gradient clipped and rounded, the exact sum.

The sample comes from the operating system's randomness and is told to nobody: the cost of a round rests on it. Rounding
is at random to either neighbour, so that it is right on average; its randomness need not be secret, because the bound
on a rounded vector holds for every outcome. Must not know: noise, the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from analytics_client.agent.training.packages import Installed, package_gradients
from queries.errors import QueryError
from queries.training.design import Floats
from queries.training.gradients import Gradients
from queries.training.plan import JobPlan
from trust.noise.stream import Stream

BLOCK = 1 << 23
"""Numbers that the gradients of a block of rows may take."""
SINGLE_BITS = 16
"""Up to this scale single precision holds eight more bits than the lattice."""
LOCAL_BATCH = 64
"""Rows of a local step, drawn anew for each."""
Singles = NDArray[np.float32]


class LocalGradients(Protocol):
    """Gradients of a model's loss at this institution."""

    def rows(self, values: Mapping[str, Floats], theta: Floats) -> Singles:
        """Return one row's gradient each, divided by the clip, shape (rows, width); not clipped yet."""

    def mean(self, values: Mapping[str, Floats], theta: Singles) -> Singles:
        """Return the gradient of the mean loss over the rows that give one, shape (width,)."""


def sums(
    plan: JobPlan, values: Mapping[str, Floats], theta: Floats, gradients: LocalGradients | None = None
) -> NDArray[np.int64]:
    """Return the exact integer sum of a round by gradients over this institution's rows.

    `gradients` are the model's where they are at hand already.
    """
    statistic = plan.statistic
    if not isinstance(statistic, Gradients):
        raise TypeError("this job is not trained by gradients")
    gradients = gradients or local_gradients(statistic)
    rounding = np.random.Generator(np.random.SFC64(int.from_bytes(os.urandom(32))))
    out = np.zeros(plan.length, dtype=np.int64)
    if statistic.how.method == "average":
        moved = local_steps(statistic, gradients, values, theta, rounding) - theta.astype(np.float32)
        blocks: Iterator[Singles] = iter([moved[None, :] / np.float32(statistic.how.clip)])
    else:
        chosen = sample(len(values[plan.job.label]), statistic.how.rate)
        blocks = _blocks(gradients, {name: column[chosen] for name, column in values.items()}, theta, statistic.work)
    for block in blocks:
        out += bounded(block, plan.scale_bits, plan.row_norm, rounding)
    # Clamping brings neighbours' sums no further apart, and does nothing to a sample of the expected size.
    return np.clip(out, -plan.largest_sum, plan.largest_sum)


def scores(plan: JobPlan, rate: float, values: Mapping[str, Floats], theta: Floats) -> NDArray[np.int64]:
    """Return the exact integer sum of an evaluation in a job by gradients: over a sample, like its other rounds."""
    chosen = sample(len(values[plan.job.label]), rate)
    found = plan.sums({name: column[chosen] for name, column in values.items()}, theta)
    return np.clip(found, -plan.largest_sum, plan.largest_sum)


def sample(rows: int, rate: float) -> NDArray[np.int64]:
    """Return the rows that take part, each with probability `rate` on its own, rounded down to a multiple of 2^-64."""
    if rate == 1:
        return np.arange(rows)
    draws = Stream.fresh().words64(rows)
    return np.flatnonzero(draws < np.uint64(min(int(rate * 2.0**64), 2**64 - 1)))


def bounded(block: Singles, scale_bits: int, row_norm: int, rounding: np.random.Generator) -> NDArray[np.int64]:
    """Clip rows to norm 1, round them to the lattice at random, hold each to `row_norm` in integers; return their sum.

    A row that holds something that is no number adds nothing.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
    sound = np.isfinite(norms)
    scale = np.zeros(len(block))
    # A little less than the norm: single precision may not carry a row beyond it.
    scale[sound] = (1 - 2.0**-20) * 2.0**scale_bits / np.maximum(norms[sound], 1.0)
    if not sound.all():
        block = np.where(sound[:, None], block, np.float32(0))
    kind = np.float32 if scale_bits <= SINGLE_BITS else np.float64
    scaled = block.astype(kind) * scale[:, None].astype(kind)
    steps = np.floor(scaled + rounding.random(scaled.shape, dtype=kind)).astype(np.int32)
    squares = np.einsum("ij,ij->i", steps, steps, dtype=np.float64)
    too_long = np.flatnonzero(squares * (1 + 2.0**-20) > float(row_norm) ** 2)
    for row in too_long:
        cut = np.trunc(scaled[row]).astype(np.int32)
        exact = int(np.dot(cut.astype(np.int64), cut.astype(np.int64)))
        steps[row] = cut if exact <= row_norm**2 else 0
    total: NDArray[np.int64] = steps.sum(axis=0, dtype=np.int64)
    return total


class _Regression:
    """Gradients of a generalised linear model."""

    def __init__(self, statistic: Gradients) -> None:
        self._statistic = statistic

    def rows(self, values: Mapping[str, Floats], theta: Floats) -> Singles:
        return self._statistic.rows(values, theta).astype(np.float32)

    def mean(self, values: Mapping[str, Floats], theta: Singles) -> Singles:
        block = self._statistic.rows(values, theta.astype(np.float64)) * self._statistic.how.clip
        sound = np.asarray(np.isfinite(block).all(axis=1))
        out: Singles = block[sound].sum(axis=0) / np.float32(max(1, sound.sum()))
        return out.astype(np.float32)


def local_gradients(statistic: Gradients, installed: tuple[Installed, ...] = ()) -> LocalGradients:
    """Return what computes gradients here; `installed` are the packages whose models this agent may run.

    Raise QueryError for a network where PyTorch is not installed, PolicyDenied for a package that is not as agreed.
    """
    if statistic.package is not None:
        return package_gradients(statistic, statistic.package, installed)
    if not statistic.network:
        return _Regression(statistic)
    try:
        from analytics_client.agent.training.networks import NetworkGradients
    except ImportError:
        raise QueryError(
            "this institution cannot train networks: its agent runs without PyTorch",
            hint="its steward installs it: pip install cohortium[torch]",
        ) from None
    return NetworkGradients(statistic)


def local_steps(
    statistic: Gradients,
    gradients: LocalGradients,
    values: Mapping[str, Floats],
    theta: Floats,
    random: np.random.Generator,
) -> Singles:
    """Return the model after the job's local steps on this institution's own rows.

    Every step takes as many rows, however many there are, so that the time it takes says nothing of their number.
    """
    how, ridge = statistic.how, statistic.job.ridge
    rows = len(values[statistic.job.label])
    start = theta.astype(np.float32)
    local = start.copy()
    if not rows:
        values = {name: np.zeros(1) for name in values}
    for _ in range(how.local_steps):
        chosen = random.integers(0, max(rows, 1), LOCAL_BATCH)
        with np.errstate(all="ignore"):
            step = gradients.mean({name: column[chosen] for name, column in values.items()}, local)
            if how.proximal:
                step = step + np.float32(how.proximal) * (local - start)
            if ridge:
                step = step + np.float32(ridge) * local
            local -= np.float32(how.local_rate) * step
    return local if rows else start


def _blocks(gradients: LocalGradients, values: Mapping[str, Floats], theta: Floats, work: int) -> Iterator[Singles]:
    rows = len(next(iter(values.values())))
    step = max(1, BLOCK // work)
    for start in range(0, rows, step):
        with np.errstate(all="ignore"):  # what is no number adds nothing
            yield gradients.rows({name: column[start : start + step] for name, column in values.items()}, theta)

"""A round by gradients at one institution: its sample, each person's gradient clipped and rounded, the exact sum.

The sample comes from the operating system's randomness and is told to nobody: the cost of a round rests on it. Rounding
is at random to either neighbour, so that it is right on average; its randomness need not be secret, because the bound
on a rounded vector holds for every outcome. Must not know: noise, the network.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from analytics_client.agent.noise.stream import Stream
from queries.errors import QueryError
from queries.training.design import Floats
from queries.training.gradients import Gradients
from queries.training.plan import JobPlan

BLOCK = 1 << 23
"""Numbers that the gradients of a block of rows may take."""
SINGLE_BITS = 16
"""Up to this scale single precision holds eight more bits than the lattice."""
Singles = NDArray[np.float32]
RowGradients = Callable[[Mapping[str, Floats], Floats], Singles]
"""One row's gradient each, divided by the clip, shape (rows, width); not clipped yet."""


def sums(plan: JobPlan, values: Mapping[str, Floats], theta: Floats) -> NDArray[np.int64]:
    """Return the exact integer sum of a round by gradients over this institution's rows."""
    statistic = plan.statistic
    if not isinstance(statistic, Gradients):
        raise TypeError("this job is not trained by gradients")
    gradients = row_gradients(statistic)
    rounding = np.random.Generator(np.random.SFC64(int.from_bytes(os.urandom(32))))
    out = np.zeros(plan.length, dtype=np.int64)
    if statistic.how.method == "average":
        change = _local_change(statistic, gradients, values, theta, rounding)
        blocks: Iterator[Singles] = iter([change[None, :].astype(np.float32)])
    else:
        chosen = sample(len(values[plan.job.label]), statistic.how.rate)
        blocks = _blocks(gradients, {name: column[chosen] for name, column in values.items()}, theta, plan.length)
    for block in blocks:
        out += bounded(block, plan.scale_bits, plan.row_norm, rounding)
    # Clamping brings neighbours' sums no further apart, and does nothing to a sample of the expected size.
    return np.clip(out, -plan.largest_sum, plan.largest_sum)


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


def row_gradients(statistic: Gradients) -> RowGradients:
    """Return what computes gradients of single rows. Raise QueryError for a network where PyTorch is not installed."""
    if not statistic.network:
        return lambda values, theta: statistic.rows(values, theta).astype(np.float32)
    try:
        from analytics_client.agent.training.networks import network_gradients
    except ImportError:
        raise QueryError(
            "this institution cannot train networks: its agent runs without PyTorch",
            hint="its steward installs it: pip install cohortium[torch]",
        ) from None
    found: RowGradients = network_gradients(statistic)
    return found


def _blocks(gradients: RowGradients, values: Mapping[str, Floats], theta: Floats, width: int) -> Iterator[Singles]:
    rows = len(next(iter(values.values())))
    step = max(1, BLOCK // width)
    for start in range(0, rows, step):
        with np.errstate(all="ignore"):  # what is no number adds nothing
            yield gradients({name: column[start : start + step] for name, column in values.items()}, theta)


def _local_change(
    statistic: Gradients,
    gradients: RowGradients,
    values: Mapping[str, Floats],
    theta: Floats,
    random: np.random.Generator,
) -> Floats:
    """Return how the model changes in some steps on this institution's own rows, divided by the clip."""
    how = statistic.how
    rows = len(values[statistic.job.label])
    local = theta.copy()
    batch = max(1, min(rows, 64))
    for _ in range(how.local_steps if rows else 0):
        chosen = random.integers(0, rows, batch)
        part = {name: column[chosen] for name, column in values.items()}
        with np.errstate(all="ignore"):
            block = gradients(part, local)
        sound = np.asarray(np.isfinite(block).all(axis=1))
        step = how.clip * np.where(sound[:, None], block, 0).mean(axis=0, dtype=np.float64)
        local -= how.local_rate * (step + how.proximal * (local - theta) + statistic.job.ridge * local)
    out: Floats = (local - theta) / how.clip
    return out

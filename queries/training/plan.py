"""From a job and the public schema to what each of its rounds releases, what that discloses, and what the job costs.

A function of public values, like `queries.plan`: analyst, coordinator and agent compute it alone and agree. Every
round is one sum of bounded integer vectors. All rounds cost the same and all of them, the spare ones too, are set aside
before the first; what was not used returns. Must not know: data, how noise is drawn, how shares travel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from queries.accounting import Curve
from queries.errors import QueryError
from queries.plan import NoiseShape, Plan, make_plan, noise_shape
from queries.schema import Dataset
from queries.training.design import Floats
from queries.training.job import Job, resolve_job
from queries.training.statistics import Statistic, make_statistic

SCALE_BITS = 40
"""At most: a row's vector of norm 1 becomes integers of norm 2^40."""
_SMALLEST_SCALE = 24
_MARGIN_BITS = 20  # of the norm, beyond which rounding errors of the check itself cannot reach
_ROOM = 1 << 60
MAX_LENGTH = 4_000_000
_BLOCK = 1 << 22  # numbers that a block of rows may take


@dataclass(frozen=True)
class JobPlan:
    """What a job releases and costs. The privacy of a round is that of `sums` plus `noise`.

    `row_norm` is the largest integer norm of one row's vector, `delta_squared` that of a person's, squared.
    """

    job: Job
    dataset: Dataset
    selection: Plan
    length: int
    scale_bits: int
    row_norm: int
    delta_squared: int
    rho_nano: int

    @property
    def slots(self) -> int:
        """How many rounds are paid for: those the model needs and the spare ones."""
        return self.job.rounds + self.job.spare_rounds

    @property
    def round_rho_nano(self) -> int:
        """Cost of one round, in units of 10^-9 of rho."""
        return self.rho_nano // self.slots

    @property
    def round_cost(self) -> Curve:
        """Cost of one round as it is charged."""
        return Curve.from_rho_nano(self.round_rho_nano)

    @property
    def cost(self) -> Curve:
        """What is set aside for the whole job."""
        return Curve(tuple(self.slots * nano for nano in self.round_cost.nano))

    @property
    def largest_sum(self) -> int:
        """Bound on the absolute value of every exact sum over all institutions, in unrefined lattice steps."""
        rows = self.selection.rows_per_person * self.dataset.max_institutions_per_person
        return self.dataset.max_persons * rows * self.row_norm

    @cached_property
    def statistic(self) -> Statistic:
        """What a row adds, and how sums are read."""
        return make_statistic(self.job, self.dataset)

    def noise(self, rho_nano: int, *, threshold: int, colluders: int, invited: int) -> NoiseShape:
        """Return the noise of one round of a job that costs `rho_nano` in all. Raise as `queries.plan.Plan.noise`."""
        return noise_shape(
            self.delta_squared,
            self.largest_sum,
            rho_nano // self.slots,
            threshold=threshold,
            colluders=colluders,
            invited=invited,
        )

    def sums(self, values: Mapping[str, Floats], theta: Floats) -> NDArray[np.int64]:
        """Return the exact integer sum over these rows, each bounded on its own before anything is added."""
        out = np.zeros(self.length, dtype=np.int64)
        for block in self._blocks(values, theta):
            out += self._bounded(block).sum(axis=0)
        return out

    def read(self, sums: list[int], noise: NoiseShape, survivors: int) -> tuple[Floats, float]:
        """Return a release's sums in units of a row's norm, and the standard deviation of the noise in each."""
        unit = 2.0 ** (self.scale_bits + noise.refine_bits)
        return np.asarray(sums, dtype=np.float64) / unit, float(noise.total_variance(survivors)) ** 0.5 / unit

    def _blocks(self, values: Mapping[str, Floats], theta: Floats) -> Iterator[Floats]:
        rows = len(next(iter(values.values())))
        step = max(1, _BLOCK // max(self.length, self.statistic.width**2))
        for start in range(0, rows, step):
            part = {name: column[start : start + step] for name, column in values.items()}
            with np.errstate(all="ignore"):  # what is no number adds nothing, below
                yield self.statistic.rows(part, theta)

    def _bounded(self, block: Floats) -> NDArray[np.int64]:
        """Clip each row's vector to norm 1, round it to the lattice, and hold it to the bound in exact integers."""
        sound = np.asarray(np.isfinite(block).all(axis=1))
        block = np.where(sound[:, None], block, 0.0)
        norms = np.sqrt(np.einsum("ij,ij->i", block, block))
        block *= (2.0**self.scale_bits / np.maximum(norms, 1.0))[:, None]
        steps = np.rint(block).astype(np.int64)
        # Integers up to 2^40 are exact as floats; a sum of 2^22 of their squares is right to 2^-31, which is added.
        exact = steps.astype(np.float64)
        squares = np.einsum("ij,ij->i", exact, exact) * (1 + 2.0**-30)
        steps[squares > float(self.row_norm) ** 2] = 0  # cannot happen; if it could, the bound would still hold
        return steps


def make_job_plan(job: Job, dataset: Dataset, rho_nano: int) -> JobPlan:
    """Return the plan of a job that costs rho_nano / 10^9 of zCDP in all; deterministic.

    Raise QueryError as `resolve_job` does, or where a round would be too long or the cost too small to divide.
    """
    job = resolve_job(job, dataset)
    selection = make_plan(job.selection, dataset)
    statistic = make_statistic(job, dataset)
    if statistic.length > MAX_LENGTH:
        raise QueryError(
            f"a round of this job would release {statistic.length:,} numbers; at most {MAX_LENGTH:,} are possible",
            hint="use fewer predictors, or a coarser time grid",
        )
    if rho_nano < job.rounds + job.spare_rounds:
        raise QueryError("the cost is too small to be divided over the job's rounds", hint="choose a larger epsilon")
    rows = selection.rows_per_person * dataset.max_institutions_per_person
    bits = SCALE_BITS
    while dataset.max_persons * rows << (bits + 1) > _ROOM:
        bits -= 1
    if bits < _SMALLEST_SCALE:
        raise QueryError(
            "sums over this many rows do not fit into 62 bits",
            hint="publish the dataset with a smaller max_persons",
        )
    # Rounding moves each number by at most 1/2, so the norm by at most half the root of how many there are; with the
    # margin for the check that is a millionth more noise than the bare norm would need.
    row_norm = (1 << bits) + (1 << (bits - _MARGIN_BITS)) + isqrt(statistic.length) // 2 + 2
    return JobPlan(
        job=job,
        dataset=dataset,
        selection=selection,
        length=statistic.length,
        scale_bits=bits,
        row_norm=row_norm,
        delta_squared=(rows * row_norm) ** 2,
        rho_nano=rho_nano,
    )

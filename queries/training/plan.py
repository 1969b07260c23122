"""From a job and the public schema to what each of its rounds releases, what that discloses, and what the job costs.

A function of public values, like `queries.plan`: analyst, coordinator and agent compute it alone and agree. Every
round is one sum of bounded integer vectors. All rounds cost the same and all of them, the spare ones too, are set aside
before the first; what was not used returns. Must not know: data, how noise is drawn, how shares travel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, isqrt, log, sqrt

import numpy as np
from numpy.typing import NDArray

from queries.accounting import NANO, Curve, epsilon_to_rho_nano, rho_to_epsilon
from queries.errors import QueryError
from queries.limits import MAX_FEATURES
from queries.noise import NoiseShape, noise_shape
from queries.plan import Plan, make_plan
from queries.schema import Dataset
from queries.subsampling import cost_of_round
from queries.training.design import Floats
from queries.training.encode import decode_model, encode_model
from queries.training.job import Job, resolve_job
from queries.training.scores import Scores
from queries.training.statistics import Statistic, make_statistic

SCALE_BITS = 40
"""At most: a row's vector of norm 1 becomes integers of norm 2^40."""
_SMALLEST_SCALE = 24
_MARGIN_BITS = 20  # of the norm, beyond which rounding errors of the check itself cannot reach
_ROOM = 1 << 60
MAX_LENGTH = 4_000_000
MAX_WEIGHTS = 16_000_000
GRADIENT_BITS, NETWORK_BITS, COARSEST_BITS = 24, 16, 13
"""A clipped gradient becomes integers of this norm: coarser where a model is long and travels in lanes, and down to the
coarsest where that makes sums over `MANY` institutions fit into four bytes a number. At 2^13 rounding lengthens the
bound on a million numbers by 0.23%, which is what it costs in noise."""
SHORTEST_IN_LANES = 1 << 13
MANY = 32
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
    evaluation: JobPlan | None = None
    """Of a job that evaluates its model on the way: what such a round releases. It costs what the others do."""
    evaluates: bool = False

    @property
    def slots(self) -> int:
        """How many rounds are paid for; see `queries.training.job.Job.slots` for their order."""
        return self.job.slots

    @property
    def trains(self) -> int:
        """The slots before this one are of training rounds, the others of evaluations."""
        return self.job.rounds + self.job.spare_rounds

    def of_slot(self, slot: int) -> JobPlan:
        """Return what the round of a slot releases: which of the two it is, nobody can choose."""
        return self.evaluation if self.evaluation is not None and slot >= self.trains else self

    def evaluated_after(self, slot: int) -> int:
        """Return after how many training rounds the evaluation of a slot comes."""
        return min((slot - self.trains + 1) * self.job.evaluate_every, self.job.rounds)

    @property
    def round_rho_nano(self) -> int:
        """A round's share of the stated cost, in units of 10^-9 of rho."""
        return self.rho_nano // self.slots

    @property
    def noise_rho_nano(self) -> int:
        """What a round's noise alone gives a person who is in it, in units of 10^-9 of rho."""
        how = self.job.gradual
        return self.round_rho_nano if how is None else int(NANO / (2 * how.noise_multiplier**2))

    @cached_property
    def round_cost(self) -> Curve:
        """Cost of one round as it is charged: less than the noise alone gives where persons take part by chance."""
        how = self.job.gradual
        if how is None or how.rate == 1:
            return Curve.from_rho_nano(self.noise_rho_nano)
        return cost_of_round(how.rate, how.noise_multiplier)

    @property
    def cost(self) -> Curve:
        """What is set aside for the whole job."""
        return self.round_cost * self.slots

    def epsilon(self, rounds: int | None = None) -> float:
        """Return the epsilon of so many rounds, by default of all that are paid, at the dataset's delta."""
        count = self.slots if rounds is None else rounds
        if self.job.gradual is None:
            return rho_to_epsilon(count * self.round_rho_nano / NANO, self.dataset.delta)
        return (self.round_cost * count).epsilon(self.dataset.delta)

    @property
    def largest_sum(self) -> int:
        """Bound on the absolute value of every exact sum over all institutions, in unrefined lattice steps."""
        rows = self.selection.rows_per_person * self.dataset.max_institutions_per_person
        how = self.job.gradual
        if how is not None and how.method == "average" and not self.evaluates:
            return self.row_norm
        return _most_rows(self.job, self.dataset, rows) * self.row_norm

    @cached_property
    def statistic(self) -> Statistic:
        """What a row adds, and how sums are read."""
        statistic = make_statistic(self.job, self.dataset)
        return Scores(self.job, self.dataset, statistic) if self.evaluates else statistic

    def noise(self, rho_nano: int, *, threshold: int, colluders: int, invited: int) -> NoiseShape:
        """Return the noise of one round of a job that costs `rho_nano` in all. Raise as `queries.plan.Plan.noise`."""
        return noise_shape(
            self.delta_squared,
            self.largest_sum,
            rho_nano // self.slots if self.job.gradual is None else self.noise_rho_nano,
            threshold=threshold,
            colluders=colluders,
            invited=invited,
            length=self.length,
        )

    def encode_model(self, theta: Floats) -> bytes:
        """Return a model as it travels: in single precision where gradients of it are taken in single precision."""
        return encode_model(theta, single=self.job.gradual is not None)

    def decode_model(self, data: bytes) -> Floats:
        """Return the numbers of a model that travelled. Raise QueryError where they are not this job's."""
        return decode_model(data, self.statistic.width, single=self.job.gradual is not None)

    def sums(self, values: Mapping[str, Floats], theta: Floats) -> NDArray[np.int64]:
        """Return the exact integer sum over these rows, each bounded on its own before anything is added."""
        out = np.zeros(self.length, dtype=np.int64)
        for block in self._blocks(values, theta):
            out += self._bounded(block).sum(axis=0)
        return out

    def read(self, sums: NDArray[np.int64], noise: NoiseShape, survivors: int) -> tuple[Floats, float]:
        """Return a release's sums in units of a row's norm, and the standard deviation of the noise in each."""
        unit = 2.0 ** (self.scale_bits + noise.refine_bits)
        return sums / unit, float(noise.total_variance(survivors)) ** 0.5 / unit

    def _blocks(self, values: Mapping[str, Floats], theta: Floats) -> Iterator[Floats]:
        rows = len(next(iter(values.values())))
        step = max(1, _BLOCK // self.statistic.work)
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

    Raise QueryError as `resolve_job` does, or where a round would be too long, the cost too small to divide, or, for
    training by gradients, not the one that its noise stands for (`stated_rho_nano`).
    """
    if dataset.delta == 0:
        raise QueryError(
            f"dataset {dataset.name!r} has no delta, which the noise of training and evaluation needs",
            hint="ask it for statistics, or ask its governance to publish it with a delta",
        )
    job = resolve_job(job, dataset)
    selection = make_plan(job.selection, dataset, most=MAX_FEATURES)
    statistic = make_statistic(job, dataset)
    longest = MAX_LENGTH if job.gradual is None else MAX_WEIGHTS
    if statistic.length > longest:
        raise QueryError(
            f"a round of this job would release {statistic.length:,} numbers; at most {longest:,} are possible",
            hint="use fewer predictors, a coarser time grid, or a smaller network",
        )
    if rho_nano < job.slots:
        raise QueryError("the cost is too small to be divided over the job's rounds", hint="choose a larger epsilon")
    rows = selection.rows_per_person * dataset.max_institutions_per_person
    if job.gradual is None:
        bits, row_norm = _rounded(dataset.max_persons * rows, statistic.length)
    else:
        most = 1 if job.gradual.method == "average" else _most_rows(job, dataset, rows)
        bits = _gradient_bits(statistic.length, most)
        row_norm = stochastic_norm(bits, statistic.length)
    # One person moves an institution's whole change, from one end of its clip to the other.
    moved = 2 if job.gradual is not None and job.gradual.method == "average" else 1
    plan = JobPlan(
        job=job,
        dataset=dataset,
        selection=selection,
        length=statistic.length,
        scale_bits=bits,
        row_norm=row_norm,
        delta_squared=(moved * rows * row_norm) ** 2,
        rho_nano=rho_nano,
    )
    if job.evaluations:
        plan = replace(plan, evaluation=_evaluation(plan, rows))
    if job.gradual is not None:
        stated = _stated(plan)
        if abs(rho_nano - stated) > 1 + stated // 1_000_000:
            raise QueryError("the request states another cost than its noise stands for", hint="sign it anew")
    return plan


def _evaluation(plan: JobPlan, rows: int) -> JobPlan:
    """Return what the evaluations of a job release: a person is in one cell, or one bounded vector, in each.

    Where training samples persons, so do they: then one cost holds for all rounds.
    """
    length = Scores(plan.job, plan.dataset, plan.statistic).length
    bits, row_norm = _rounded(plan.dataset.max_persons * rows, length)
    return replace(
        plan,
        length=length,
        scale_bits=bits,
        row_norm=row_norm,
        delta_squared=(rows * row_norm) ** 2,
        evaluates=True,
    )


def stated_rho_nano(job: Job, dataset: Dataset) -> int:
    """Return the cost that a job by gradients states: the rho whose epsilon at the dataset's delta is the job's.

    Its rounds are charged by their own curve (`JobPlan.round_cost`); this number is for policies, logs and people.
    Raise QueryError or BudgetError where the job is impossible.
    """
    how = job.gradual
    if how is None:
        raise ValueError("a job by Newton steps states what its analyst chose")
    curve = Curve.from_rho_nano(int(NANO / (2 * how.noise_multiplier**2)))
    if how.rate < 1:
        curve = cost_of_round(how.rate, how.noise_multiplier)
    return _stated_for((curve * job.slots).epsilon(dataset.delta), dataset.delta)


def _stated(plan: JobPlan) -> int:
    return _stated_for(plan.epsilon(), plan.dataset.delta)


def _stated_for(epsilon: float, delta: float) -> int:
    if not epsilon > 0:
        raise QueryError("the job costs nothing: so much noise teaches nothing", hint="use a smaller noise_multiplier")
    return epsilon_to_rho_nano(epsilon, delta)


def _rounded(rows: int, length: int) -> tuple[int, int]:
    """Return scale and norm of vectors that are rounded to the nearest: as fine as sums of so many rows allow.

    Raise QueryError where that is too coarse.
    """
    bits = SCALE_BITS
    while rows << (bits + 1) > _ROOM:
        bits -= 1
    if bits < _SMALLEST_SCALE:
        raise QueryError(
            "sums over this many rows do not fit into 62 bits",
            hint="publish the dataset with a smaller max_persons",
        )
    return bits, (1 << bits) + (1 << (bits - _MARGIN_BITS)) + isqrt(length) // 2 + 2


def _most_rows(job: Job, dataset: Dataset, rows: int) -> int:
    """Return how many rows may add to a sum: of a sample four times as many as are expected, to which it is clamped."""
    how = job.gradual
    every = dataset.max_persons * rows
    return every if how is None else min(every, ceil(4 * how.rate * dataset.max_persons) + 64)


def _gradient_bits(length: int, most_rows: int) -> int:
    if length < SHORTEST_IN_LANES:
        return GRADIENT_BITS
    for bits in range(NETWORK_BITS, COARSEST_BITS - 1, -1):
        if (MANY * most_rows * stochastic_norm(bits, length)).bit_length() < 32:  # one bit more for the sign
            return bits
    return NETWORK_BITS


def stochastic_norm(bits: int, length: int) -> int:
    """Return a bound on the integer norm of a vector of norm 2^bits that is rounded to either neighbour at random.

    Kairouz, Liu and Steinke 2021, Proposition 22, with beta = 10^-6; a vector that exceeds it is cut towards zero
    instead, which makes it no longer than it was.
    """
    scaled = 1 << bits
    root = isqrt(length) + 1
    likely = scaled**2 + length // 4 + ceil(sqrt(2 * log(1e6)) * (scaled + root / 2))
    return isqrt(min((scaled + root) ** 2, likely)) + 1

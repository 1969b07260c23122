"""What a training job would disclose, cost and be worth, said before anything is asked. Must not know: the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, isfinite, sqrt
from typing import Any

import numpy as np

from analytics_client.result import Cost
from analytics_client.training import expect
from analytics_client.training.expect import ASSUMED_PERSONS
from queries.accounting import NANO
from queries.errors import QuorumError
from queries.estimate import Z95
from queries.noise import NoiseShape
from queries.training import newton
from queries.training.boosting import Boosting
from queries.training.cox import Cox
from queries.training.descent import Descent
from queries.training.kmeans import Clustering
from queries.training.plan import JobPlan
from queries.training.statistics import Glm
from trust.lanes import lanes_of
from trust.secagg import default_threshold

SMALLEST_COHORT = 3


@dataclass(frozen=True)
class JobExplanation:
    """What a job would disclose, cost and be worth if `institutions` were asked now, `asked` of them in each round."""

    plan: JobPlan
    noise: NoiseShape
    cost: Cost
    institutions: tuple[str, ...]
    asked: int
    threshold: int
    colluders: int

    @property
    def noise_multiplier(self) -> float:
        """Standard deviation of the guaranteed noise in units of one person's largest contribution."""
        return sqrt(float(self.noise.central_variance) / 4.0**self.noise.refine_bits / self.plan.delta_squared)

    @property
    def bytes_per_round(self) -> int:
        """What each institution uploads a round."""
        lanes = lanes_of(self.plan, self.noise, self.asked)
        return lanes.elements(self.plan.length) * lanes.ring_bits // 8

    @property
    def deviation(self) -> float:
        """Standard deviation of a round's noise in each number, in units of one row's largest contribution."""
        unit = 2.0 ** (self.plan.scale_bits + self.noise.refine_bits)
        return sqrt(float(self.noise.total_variance(self.asked))) / unit

    def coefficient_error(self, persons: int = ASSUMED_PERSONS) -> float:
        """Return roughly what the noise alone adds to a coefficient: half a 95% interval, on the unit scale.

        A coefficient on the unit scale multiplies a column that runs from -1 to 1. Assumes values spread evenly over
        their bounds and balanced labels; a guess for planning, made of public numbers alone.
        """
        statistic = self.plan.statistic
        if not isinstance(statistic, Glm | Cox):
            return float("nan")
        deviation = self.deviation
        moments = statistic.moments(np.zeros(statistic.length), newton.initial(self.plan), deviation)
        curvature = {"logistic": 0.25, "multinomial": 0.2}.get(self.plan.job.model, 1.0) / 3
        kept = max(1, self.plan.job.rounds // 2)
        return Z95 * moments.deviations[0] / (persons * curvature) / sqrt(kept)

    @property
    def warning(self) -> str:
        """Say that so little can be learnt at this cost that the job is not worth it; "" where it may be."""
        how, statistic = self.plan.job.gradual, self.plan.statistic
        if how is not None:
            return self._descent_warning(how)
        if isinstance(statistic, Clustering):
            return expect.clusters_warning(statistic, self.deviation, self.plan.dataset.max_persons)
        if isinstance(statistic, Boosting):
            return expect.trees_warning(statistic, self.deviation, self.plan.dataset.max_persons)
        persons = min(ASSUMED_PERSONS, self.plan.dataset.max_persons)
        expected = self.coefficient_error(persons)
        if isfinite(expected) and expected < 2:
            return ""
        return (
            f"even {persons:,} persons would leave coefficients uncertain by"
            f" {expected:.2g} on a scale where 2 is much: spend more epsilon, or use fewer predictors or rounds"
        )

    def _descent_warning(self, how: Descent) -> str:
        ratio = self.noise_to_signal
        if ratio is None or ratio < 30:
            return ""
        return (
            f"the noise in a round is {ratio:.3g} times as long as the longest gradient that {how.batch:,.0f} persons"
            " can have together: spend more epsilon, take a larger batch, or a smaller model"
        )

    @property
    def noise_to_signal(self) -> float | None:
        """Length of a round's noise over that of the longest sum of `batch` persons; None for Newton steps."""
        how = self.plan.job.gradual
        if how is None:
            return None
        many = how.batch if how.method == "sgd" else self.asked
        total = self.noise.total_variance(self.asked) * self.plan.length
        return sqrt(float(total)) / 2.0**self.noise.refine_bits / self.plan.row_norm / many

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield what people read: a label and a sentence each."""
        job = self.plan.job
        yield "trains", job.shape
        yield "rounds", f"{job.rounds}, and {job.spare_rounds} to spare for rounds that fail"
        if job.evaluations:
            whom = "the persons held out" if job.split else "the persons that it is trained on"
            stops = f"; it ends after {job.patience} in a row that are no better" if job.patience else ""
            yield (
                "evaluates",
                f"{job.evaluations} times, after every {job.evaluate_every} rounds and the last, on {whom}; each costs"
                f" what a round does{stops}",
            )
        yield (
            "releases",
            f"{self.plan.length:,} numbers a round; each institution uploads {self.bytes_per_round:,} bytes",
        )
        yield "noise", f"{self.noise_multiplier:.3g} times what one person can contribute, in each number of a round"
        ratio = self.noise_to_signal
        if ratio is not None:
            yield "expect", f"noise {ratio:.3g} times as long as the longest gradient a round can have"
        elif isinstance(self.plan.statistic, Clustering):
            yield "expect", expect.clusters_sentence(self.plan.statistic, self.deviation)
        elif isinstance(self.plan.statistic, Boosting):
            yield "expect", expect.trees_sentence(self.plan.statistic, self.deviation)
        else:
            yield (
                "expect",
                (
                    f"± {self.coefficient_error():.2g} (95%) from the noise alone, for {ASSUMED_PERSONS:,} persons;"
                    " columns scaled to run from -1 to 1"
                ),
            )
        if self.warning:
            yield "warning", self.warning
        yield "costs", f"{self.cost} in all; rounds that are not used are given back"
        some = "" if self.asked == len(self.institutions) else f", {self.asked} of them in each round, drawn anew"
        yield "asks", f"{len(self.institutions)} institutions: {', '.join(self.institutions)}{some}"
        late = f", within {job.round_seconds:,} s; who is later is asked again in the next" if job.round_seconds else ""
        yield "needs", f"{self.threshold} of them to the end of each round{late}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "dataset": self.plan.dataset.name,
            "question": self.plan.job.shape,
            "rounds": self.plan.job.rounds,
            "spare_rounds": self.plan.job.spare_rounds,
            "evaluations": self.plan.job.evaluations,
            "round_seconds": self.plan.job.round_seconds,
            "length": self.plan.length,
            "bytes_per_round": self.bytes_per_round,
            "noise_multiplier": self.noise_multiplier,
            "coefficient_error": self.coefficient_error() if isfinite(self.coefficient_error()) else None,
            "noise_to_signal": self.noise_to_signal,
            "warning": self.warning,
            "cost": {"epsilon": self.cost.epsilon, "rho": self.cost.rho, "delta": self.cost.delta},
            "institutions": list(self.institutions),
            "asked": self.asked,
            "threshold": self.threshold,
            "colluders": self.colluders,
        }

    def __str__(self) -> str:
        from analytics_client.render import to_text
        from analytics_client.render_models import job_table

        return to_text(job_table(self))


def explain_job(
    plan: JobPlan,
    cost: Cost,
    *,
    institutions: tuple[str, ...],
    colluders: int,
    minimum_cohort: int = SMALLEST_COHORT,
) -> JobExplanation:
    """Return the explanation of a job. Raise QuorumError where too few institutions serve the dataset for any round."""
    need = max(SMALLEST_COHORT, minimum_cohort)
    named, fraction = plan.job.institutions, plan.job.fraction
    if named:
        institutions = tuple(name for name in institutions if name in named)
    if len(institutions) < need:
        who = f"{len(institutions)} institutions{' of those that the job names' if named else ''}"
        raise QuorumError(
            f"only {who} serve {plan.dataset.name!r} now; a job needs {need}",
            hint="cohortium datasets shows who serves what",
        )
    asked = max(need, ceil((fraction or 1) * len(institutions) - 1e-9))
    threshold = default_threshold(asked)
    noise = plan.noise(plan.rho_nano, threshold=threshold, colluders=colluders, invited=asked)
    return JobExplanation(plan, noise, cost, institutions, asked, threshold, colluders)


def cost_of_job(plan: JobPlan) -> Cost:
    """Return what is set aside for a whole job."""
    return Cost(plan.rho_nano / NANO, plan.epsilon(), plan.dataset.delta)

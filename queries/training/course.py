"""The course of a job: from release to release, the model that each next round is asked at.

A function of the releases alone, which are public: coordinator and analyst each follow it. Must not know: data, keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from queries.errors import QueryError
from queries.training import clusters, forest, newton
from queries.training.boosting import Boosting
from queries.training.cox import Cox
from queries.training.descent import Descent
from queries.training.design import Floats
from queries.training.gradients import Gradients
from queries.training.kmeans import Clustering
from queries.training.newton import Released
from queries.training.plan import JobPlan
from queries.training.scores import Scores
from queries.training.statistics import Glm

_ADAM = (0.9, 0.999, 1e-8)
_LARGEST = 1e6


class Course(Protocol):
    """A job under way; `theta` is the model that the next round is asked at."""

    theta: Floats

    def take(self, release: Released) -> None:
        """Go on by one release. Raise QueryError where training diverged; `theta` is then the last good model."""


def make_course(plan: JobPlan) -> Course:
    """Return the course of a job at its beginning."""
    if isinstance(plan.statistic, Gradients):
        return _Descent(plan, plan.statistic)
    if isinstance(plan.statistic, Clustering):
        return _Steps(plan, plan.statistic.initial(), clusters.advance)
    if isinstance(plan.statistic, Boosting):
        return _Steps(plan, plan.statistic.initial(), forest.advance)
    return _Still() if isinstance(plan.statistic, Scores) else _Steps(plan, newton.initial(plan), newton.advance)


def loss_of(plan: JobPlan, release: Released) -> float | None:
    """Return the loss at the model that a release was asked at, as the noise left it; None where none was paid for."""
    if isinstance(plan.statistic, Clustering):
        return clusters.inertia(plan, release)
    if isinstance(plan.statistic, Boosting):
        return forest.loss(plan, release)
    if not isinstance(plan.statistic, Glm | Cox):
        return None
    try:
        return newton.loss(plan, release)
    except QueryError:  # drowned by the noise
        return None


class _Still:
    """An evaluation: nothing is trained."""

    def __init__(self) -> None:
        self.theta = np.zeros(1)

    def take(self, release: Released) -> None:
        """There is nothing to go on to."""


class _Steps:
    """Each model follows from one release alone: Newton steps, moving centres, growing trees."""

    def __init__(self, plan: JobPlan, theta: Floats, advance: Callable[[JobPlan, Released], Floats]) -> None:
        self._plan = plan
        self._advance = advance
        self.theta = theta

    def take(self, release: Released) -> None:
        self.theta = self._advance(self._plan, release)


class _Descent:
    """Server steps on noisy gradients, or on changes of models: SGD, momentum (Polyak), Adam (Kingma and Ba 2015)."""

    def __init__(self, plan: JobPlan, statistic: Gradients) -> None:
        self._how: Descent = statistic.how
        self._ridge = plan.job.ridge
        self.theta = statistic.initial()
        self._first, self._second, self._steps = np.zeros(0), np.zeros(0), 0

    def take(self, release: Released) -> None:
        how = self._how
        gradient = release.sums * how.clip
        # Averaging: minus the mean change, so that both are something to step against. The institutions count alike.
        gradient = gradient / how.batch if how.method == "sgd" else -gradient / max(release.survivors, 1)
        if self._ridge:
            gradient = gradient + self._ridge * release.theta
        step = self._step(gradient)
        theta = release.theta - how.learning_rate * step
        if not np.isfinite(theta).all() or np.abs(theta).max() > _LARGEST:
            raise QueryError(
                "training diverged: weights grow without bound", hint="use a smaller learning_rate or more noise budget"
            )
        self.theta = theta

    def _step(self, gradient: Floats) -> Floats:
        how = self._how
        self._steps += 1
        if how.optimizer == "sgd":
            return gradient
        if not len(self._first):
            self._first, self._second = np.zeros_like(gradient), np.zeros_like(gradient)
        if how.optimizer == "momentum":
            self._first = how.momentum * self._first + gradient
            return self._first
        one, two, small = _ADAM
        self._first = one * self._first + (1 - one) * gradient
        self._second = two * self._second + (1 - two) * gradient**2
        first, second = self._first / (1 - one**self._steps), self._second / (1 - two**self._steps)
        out: Floats = first / (np.sqrt(second) + small)
        return out

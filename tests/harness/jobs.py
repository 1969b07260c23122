"""A job followed to its end in memory: its rounds' exact sums, with the noise that its plan states."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from queries.training.course import make_course
from queries.training.newton import Released
from queries.training.plan import JobPlan

INSTITUTIONS = 3


def deviation_of(plan: JobPlan) -> float:
    """Return the noise's standard deviation in each number of a round by three institutions."""
    noise = plan.noise(plan.rho_nano, threshold=INSTITUTIONS, colluders=1, invited=INSTITUTIONS)
    return float(noise.total_variance(INSTITUTIONS)) ** 0.5 / 2.0 ** (plan.scale_bits + noise.refine_bits)


def run(plan: JobPlan, values: Mapping[str, np.ndarray], *, noise: bool = False, seed: int = 0) -> list[Released]:
    """Return every round's release."""
    random, deviation = np.random.default_rng(seed), deviation_of(plan) if noise else 0.0
    course, releases = make_course(plan), []
    for _ in range(plan.job.rounds):
        exact = plan.sums(values, course.theta) / 2.0**plan.scale_bits
        releases.append(Released(course.theta, exact + random.normal(0, deviation, plan.length), deviation, 3))
        course.take(releases[-1])
    return releases

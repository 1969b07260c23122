"""From a job's releases to its model: damped Newton steps, and standard errors that include every noise there was.

A step is taken from one release alone, so the model after each round is a function of the releases before it, which
are public: coordinator and analyst each compute it. The estimate is the mean of the last models, at most half of them,
whose steps are no longer than noise explains: each is then the optimum plus noise of its own. Must not know: data, the
log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from queries.errors import QueryError
from queries.estimate import Z95
from queries.training.design import Floats
from queries.training.plan import JobPlan
from queries.training.statistics import Moments

LONGEST_STEP = 4.0
"""On the unit scale, where a coefficient of 4 multiplies odds by e^8 from a bound of the column to the other."""
LARGEST_COEFFICIENT = 200.0
_DRAWS = 400
_EXACT = 1e-7  # a step on the unit scale that is as good as none
_SHORT = 0.1  # of a standard error
_CLEAR = 1.5  # times what noise alone reaches, for a curvature that is believed


@dataclass(frozen=True)
class Released:
    """One round's release: the model it was asked at, the sums in units of a row's norm, and the noise in each."""

    theta: Floats
    sums: Floats
    deviation: float
    survivors: int = 0


@dataclass(frozen=True)
class Coefficient:
    """One coefficient in the data's own units.

    `noise_error` is what the noise alone adds: `pooled_low`, `pooled_high` cover the coefficient that the pooled data
    give. `standard_error`, `low` and `high` are about the population that the persons were drawn from, noise included.
    """

    name: str
    value: float
    standard_error: float
    low: float
    high: float
    noise_error: float
    pooled_low: float
    pooled_high: float


@dataclass(frozen=True)
class Fit:
    """A fitted regression. `theta` is on the unit scale; deviances are None where the model has none, `count` noisy.

    Where it has not `converged` the last step was longer than noise explains, or the noise hid how the likelihood
    curves in some direction: then intervals do not hold. `losses` has, per round, the mean loss of a person (of "cox",
    of an event) at the model that the round was asked at, as the noise left it.
    """

    theta: Floats
    coefficients: tuple[Coefficient, ...]
    covariance: Floats
    count: float
    deviance: float | None
    null_deviance: float | None
    log_likelihood: float | None
    dispersion: float
    rounds: int
    converged: bool
    losses: tuple[float, ...]


def initial(plan: JobPlan) -> Floats:
    """Return the model that the first round is asked at: zeros."""
    return np.zeros(plan.statistic.width)


def advance(plan: JobPlan, release: Released) -> Floats:
    """Return the model after a release. Raise QueryError where it diverged: the one before is the last good one."""
    moments = plan.statistic.moments(release.sums, release.theta, release.deviation)
    step = _step(plan, moments, release.theta)
    length = float(np.linalg.norm(step))
    if not np.isfinite(length):
        raise QueryError("training diverged: a step is no number", hint="spend more epsilon, or use fewer predictors")
    theta: Floats = release.theta + step * min(1.0, LONGEST_STEP / max(length, 1e-300))
    if np.abs(theta).max() > LARGEST_COEFFICIENT:
        raise QueryError(
            "training diverged: coefficients grow without bound, as they do where classes can be separated",
            hint="add a penalty: ridge = 0.001",
        )
    return theta


def fit(plan: JobPlan, releases: Sequence[Released]) -> Fit:
    """Return the estimate that a job's releases give, in the order of its rounds. Raise QueryError without any."""
    if not releases:
        raise QueryError("the job ended before its first round: there is no model")
    last, converged = _settled(plan, releases)
    after = [advance(plan, release) for release in last]
    theta: Floats = np.mean(after, axis=0)
    moments = [plan.statistic.moments(r.sums, r.theta, r.deviation) for r in last]
    penalty = _penalty(plan, float(np.mean([m.count for m in moments])))
    information = np.mean([m.hessian for m in moments], axis=0)
    blur = moments[-1].deviations[1] / sqrt(len(last))
    inverse = _inverse(information + np.diag(penalty), blur)
    seen = np.linalg.eigvalsh(information + np.diag(penalty))[0] > _CLEAR * _floor(information, blur)
    count = max(float(np.mean([m.count for m in moments])), 1.0)
    noise = _noise_covariance(plan, last, inverse)
    dispersion = _dispersion(plan, moments[-1], count, inverse)
    covariance: Floats = inverse @ information @ inverse * dispersion + noise
    deviance, null, likelihood = _deviances(plan, moments[-1])
    return Fit(
        theta=theta,
        coefficients=_coefficients(plan, theta, covariance, noise),
        covariance=covariance,
        count=count,
        deviance=deviance,
        null_deviance=null,
        log_likelihood=likelihood,
        dispersion=dispersion,
        rounds=len(releases),
        converged=converged and bool(seen),
        losses=tuple(loss(plan, release) for release in releases),
    )


def loss(plan: JobPlan, release: Released) -> float:
    """Return the mean loss of a person (of "cox", of an event) at the model that a release was asked at.

    Raise QueryError where the noise drowns it.
    """
    moments = plan.statistic.moments(release.sums, release.theta, release.deviation)
    return moments.loss / max(moments.label if plan.job.model == "cox" else moments.count, 1.0)


def _settled(plan: JobPlan, releases: Sequence[Released]) -> tuple[list[Released], bool]:
    """Return the last releases that lead to the optimum but for noise, at most half of all, and whether any does.

    Between two such models lie the noise of one and of the other, so a step is tried against twice the noise's
    covariance, at a level that the noise alone exceeds once in a thousand rounds.
    """
    moments = plan.statistic.moments(releases[-1].sums, releases[-1].theta, releases[-1].deviation)
    inverse = _inverse(moments.hessian + np.diag(_penalty(plan, moments.count)), moments.deviations[1])
    noise = _noise_covariance(plan, releases[-1:], inverse)
    width = plan.statistic.width
    limit = width + 3.1 * sqrt(2 * width) + 4
    if plan.job.model == "linear":
        return [releases[-1]], True  # its one step is exact from anywhere

    def settled(release: Released, spread: Floats) -> bool:
        step = advance(plan, release) - release.theta
        return bool(step @ np.linalg.pinv(spread) @ step <= limit)

    strict = 2 * noise + np.eye(width) * _EXACT**2
    kept: list[Released] = []
    for release in reversed(releases[len(releases) - max(1, len(releases) // 2) :]):
        if not settled(release, strict):
            break
        kept.insert(0, release)
    # A step that is short beside the sampling error does no harm to intervals about the population.
    converged = bool(kept) or settled(releases[-1], strict + (_SHORT**2) * inverse)
    return kept or [releases[-1]], converged


def _penalty(plan: JobPlan, count: float) -> Floats:
    """Diagonal that ridge adds to the Hessian; intercepts are free."""
    out = np.full(plan.statistic.width, plan.job.ridge * max(count, 0.0))
    if plan.statistic.design.has_intercept:
        out[:: plan.statistic.design.width] = 0.0
    return out


def _step(plan: JobPlan, moments: Moments, theta: Floats) -> Floats:
    penalty = _penalty(plan, moments.count)
    step: Floats = _inverse(moments.hessian + np.diag(penalty), moments.deviations[1]) @ (
        moments.gradient - penalty * theta
    )
    return step


def _inverse(hessian: Floats, deviation: float) -> Floats:
    """Return the inverse after raising eigenvalues to what the noise of a symmetric matrix reaches: 2 sqrt(p) sigma."""
    values, vectors = np.linalg.eigh(hessian)
    out: Floats = (vectors / np.maximum(values, _floor(hessian, deviation))) @ vectors.T
    return out


def _floor(hessian: Floats, deviation: float) -> float:
    largest = float(np.abs(hessian).sum(axis=0).max())
    return max(2 * sqrt(len(hessian)) * deviation, largest * 1e-13, 1e-300)


def _noise_covariance(plan: JobPlan, last: Sequence[Released], inverse: Floats) -> Floats:
    """Return the covariance that noise gives the mean of the last models.

    For generalised linear models the gradient's noise is white, so it is the inverse Hessian's square. For Cox that of
    the risk sets enters through quotients: it is found by drawing, which tells nothing that the release does not.
    """
    spread: Floats = np.zeros_like(inverse)
    for release in last:
        if plan.job.model != "cox":
            deviation = plan.statistic.moments(release.sums, release.theta, release.deviation).deviations[0]
            spread = spread + deviation**2 * inverse @ inverse
            continue
        random = np.random.default_rng(0)
        gradients = [
            plan.statistic.moments(
                release.sums + random.normal(0.0, release.deviation, len(release.sums)),
                release.theta,
                release.deviation,
            ).gradient
            for _ in range(_DRAWS if release.deviation > 0 else 2)
        ]
        if release.deviation > 0:
            spread = spread + inverse @ np.cov(np.asarray(gradients).T).reshape(inverse.shape) @ inverse
    return spread / len(last) ** 2


def _dispersion(plan: JobPlan, moments: Moments, count: float, inverse: Floats) -> float:
    """Residual variance per degree of freedom for "linear", at the fitted model; 1 elsewhere."""
    if plan.job.model != "linear":
        return 1.0
    return max(_residual(moments, inverse), 0.0) / max(count - plan.statistic.width, 1.0)


def _residual(moments: Moments, inverse: Floats) -> float:
    """Residual sum of squares after the step from where `moments` were taken; exact, as the loss is quadratic."""
    step = inverse @ moments.gradient
    return moments.loss - 2 * float(step @ moments.gradient) + float(step @ moments.hessian @ step)


def _deviances(plan: JobPlan, moments: Moments) -> tuple[float | None, float | None, float | None]:
    """Return (deviance, null deviance, partial log-likelihood) at the model of the last release."""
    count, label = max(moments.count, 1e-300), moments.label
    match plan.job.model:
        case "linear":
            mid_half = plan.dataset.numeric(plan.job.label)
            unit = ((mid_half.upper - mid_half.lower) / 2) ** 2
            inverse = _inverse(moments.hessian, moments.deviations[1])
            return _residual(moments, inverse) * unit, (moments.saturated - label**2 / count) * unit, None
        case "logistic":
            share = min(max(label / count, 0.0), 1.0)
            terms = [p * np.log(p) for p in (share, 1 - share) if p > 0]
            return 2 * moments.loss, float(-2 * count * sum(terms)), -moments.loss
        case "poisson":
            mean = max(label / count, 1e-300)
            saturated = moments.saturated
            return 2 * (saturated + moments.loss), 2 * (saturated + count * mean - label * float(np.log(mean))), None
        case "multinomial":
            return 2 * moments.loss, None, -moments.loss
    return None, None, -moments.loss


def values_of(plan: JobPlan, theta: Floats) -> dict[str, float]:
    """Return a regression's coefficients in the data's own units, by name."""
    nothing = np.zeros((len(theta), len(theta)))
    return {found.name: found.value for found in _coefficients(plan, theta, nothing, nothing)}


def _coefficients(plan: JobPlan, theta: Floats, covariance: Floats, noise: Floats) -> tuple[Coefficient, ...]:
    """Change to the data's units, class by class; a linear model's label has units of its own."""
    design = plan.statistic.design
    classes = plan.statistic.width // design.width
    scale, shift = 1.0, 0.0
    if plan.job.model == "linear":
        kind = plan.dataset.numeric(plan.job.label)
        shift, scale = kind.lower / 2 + kind.upper / 2, kind.upper / 2 - kind.lower / 2
    labels = plan.dataset.categorical(plan.job.label).keys[1:] if plan.job.model == "multinomial" else ("",)
    out: list[Coefficient] = []
    for number in range(classes):
        part = slice(number * design.width, (number + 1) * design.width)
        change = design.to_units * scale
        values = change @ theta[part]
        if design.has_intercept:
            values[0] += shift
        total = np.sqrt(np.maximum(np.diag(change @ covariance[part, part] @ change.T), 0.0))
        added = np.sqrt(np.maximum(np.diag(change @ noise[part, part] @ change.T), 0.0))
        for name, value, error, extra in zip(design.names, values, total, added, strict=True):
            v, e, n = float(value), float(error), float(extra)
            full = f"{labels[number]}: {name}" if labels[number] else name
            out.append(Coefficient(full, v, e, v - Z95 * e, v + Z95 * e, n, v - Z95 * n, v + Z95 * n))
    return tuple(out)

"""What one person's row adds to the sum that a round of a regression releases: a bounded vector, and how it is read.

Each row of a block has a Euclidean norm of at most 1 whatever the row holds and whatever model was asked at, because it
is divided by a bound that follows from the public bounds and from the model (`scale`). A block is

    generalised linear   a_g gradient | a_h upper half of the Hessian, off the diagonal times sqrt 2 | a_m totals
    Cox                  a_r (1, x, xx') exp(x theta) in the cell of the row's own time | a_e (events, x of the event)

so that the released Hessian's Frobenius norm is the block's. Risk sets are sums over later cells, taken after the noise
(Breslow 1974 for ties within a cell). Must not know: noise, budgets, where rows come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp, log, log1p, sqrt
from typing import Protocol

import numpy as np

from queries.schema import Dataset
from queries.training.design import Design, Floats, make_design
from queries.training.job import Job

WEIGHT_GRADIENT, WEIGHT_HESSIAN, WEIGHT_TOTALS = sqrt(0.60), sqrt(0.30), sqrt(0.10)
WEIGHT_RISK, WEIGHT_EVENTS = sqrt(0.70), sqrt(0.30)
_LARGEST_EXPONENT = 30.0


@dataclass(frozen=True)
class Moments:
    """Sums over persons at one model, in the model's own scale. `gradient` is of the log-likelihood, `hessian` minus
    its second derivative; both are what noise left of them.

    `deviations` are the standard deviations of the noise in an entry of gradient and Hessian (off its diagonal).
    """

    gradient: Floats
    hessian: Floats
    deviations: tuple[float, float]
    count: float
    label: float
    saturated: float
    loss: float


class Statistic(Protocol):
    """A model's released sum. `width` counts the model's numbers, `length` those of a row's vector.

    `work` is how many numbers a row takes while its vector is made.
    """

    design: Design
    width: int
    length: int
    work: int

    def rows(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """Return one vector of norm at most 1 a row, shape (rows, length). Values that are no numbers give NaN."""

    def moments(self, sums: Floats, theta: Floats, deviation: float) -> Moments:
        """Return what the sums say. `deviation` is the noise's standard deviation in each entry of `sums`."""

    def predict(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """Return predictions of rows: numbers, or probabilities of shape (rows, classes)."""


def make_statistic(job: Job, dataset: Dataset) -> Statistic:
    """Return the statistic of a resolved job."""
    if job.scored:
        from queries.training.scores import Scores

        return Scores(job, dataset, make_statistic(replace(job, scored=()), dataset))
    if job.descent is not None:
        from queries.training.gradients import Gradients

        return Gradients(job, dataset, job.descent)
    if job.clusters is not None:
        from queries.training.kmeans import Clustering

        return Clustering(job, dataset, job.clusters)
    if job.trees is not None:
        from queries.training.boosting import Boosting

        return Boosting(job, dataset, job.trees)
    design = make_design(job, dataset)
    if job.model == "cox":
        from queries.training.cox import Cox

        return Cox(job, dataset, design)
    return Glm(job, dataset, design)


class Glm:
    """Linear, logistic, Poisson and multinomial regression: canonical links, so the Hessian needs no label."""

    def __init__(self, job: Job, dataset: Dataset, design: Design) -> None:
        self.model = job.model
        self.design = design
        self._label = job.label
        self.classes = len(dataset.categorical(job.label).keys) - 1 if job.model in {"logistic", "multinomial"} else 1
        self.width = design.width * self.classes
        self.length = self.width + self.width * (self.width + 1) // 2 + 4
        self.work = max(self.length, self.width**2)
        if job.model == "linear":
            kind = dataset.numeric(job.label)
            self.centre = (kind.lower / 2 + kind.upper / 2, kind.upper / 2 - kind.lower / 2)
        self._upper = dataset.numeric(job.label).upper if job.model == "poisson" else 1.0

    # --- public bounds ---------------------------------------------------------------------------------------------

    def _bound(self, theta: Floats) -> float:
        """The largest absolute linear predictor of any class."""
        return max(self.design.largest_predictor(part) for part in self._by_class(theta))

    def _by_class(self, theta: Floats) -> Floats:
        return theta.reshape(self.classes, self.design.width)

    def _scales(self, theta: Floats) -> tuple[float, float, tuple[float, float, float]]:
        """Bounds on a row's gradient, Hessian, and (label, saturated log-likelihood, loss)."""
        norm = self.design.row_norm_squared
        bound = self._bound(theta)
        match self.model:
            case "linear":
                return (1 + bound) * sqrt(norm), float(norm), (1.0, 1.0, (1 + bound) ** 2)
            case "logistic":
                return sqrt(norm), norm / 4, (1.0, 1.0, log1p(exp(min(bound, 700.0))))
            case "poisson":
                top = self._upper
                mean = self._largest_mean(bound)
                saturated = max(abs(top * log(top)), 1 / np.e) + top
                return max(top, mean) * sqrt(norm), mean * norm, (top, saturated, mean + top * bound)
        # multinomial: |1[y=k] - p_k| has norm at most sqrt 2, diag(p) - pp' trace below 1
        return sqrt(2 * norm), float(norm), (1.0, 1.0, 2 * bound + log(self.classes + 1))

    def _largest_mean(self, bound: float) -> float:
        """Poisson means are cut at twice the largest label that may occur."""
        return exp(min(bound, log(2 * self._upper)))

    # --- rows ------------------------------------------------------------------------------------------------------

    def rows(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """See `Statistic`."""
        x = self.design.matrix(values)
        residual, weight, totals = self._derivatives(values[self._label], x @ self._by_class(theta).T, theta)
        scale_g, scale_h, scale_m = self._scales(theta)
        out = np.empty((len(x), self.length))
        gradient = (residual[:, :, None] * x[:, None, :]).reshape(len(x), self.width)
        out[:, : self.width] = gradient * (WEIGHT_GRADIENT / scale_g)
        full = np.einsum("nab,ni,nj->naibj", weight, x, x).reshape(len(x), self.width, self.width)
        out[:, self.width : -4] = full[:, self._rows_of, self._columns_of] * self._factors * (WEIGHT_HESSIAN / scale_h)
        out[:, -4] = WEIGHT_TOTALS / 2
        for place, (total, scale) in enumerate(zip(totals, scale_m, strict=True), start=-3):
            out[:, place] = np.clip(total / scale, -1.0, 1.0) * (WEIGHT_TOTALS / 2)
        return out

    def gradients(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """Return the gradient of each row's loss, shape (rows, width), not scaled. NaN as for `rows`."""
        x = self.design.matrix(values)
        residual, _, _ = self._derivatives(values[self._label], x @ self._by_class(theta).T, theta)
        out: Floats = -(residual[:, :, None] * x[:, None, :]).reshape(len(x), self.width)
        return out

    def _derivatives(self, label: Floats, eta: Floats, theta: Floats) -> tuple[Floats, Floats, tuple[Floats, ...]]:
        """Return residual (n, classes), weights (n, classes, classes), and (label, saturated, loss) of each row."""
        ones = np.ones((len(label), 1, 1))
        match self.model:
            case "linear":
                mid, half = self.centre
                y = np.clip((label - mid) / half, -1.0, 1.0)
                residual = y[:, None] - eta
                return residual, ones, (y, y**2, residual[:, 0] ** 2)
            case "logistic":
                mean = _expit(eta)
                loss = np.logaddexp(0.0, eta[:, 0]) - label * eta[:, 0]
                return label[:, None] - mean, (mean * (1 - mean))[:, :, None], (label, np.zeros_like(label), loss)
            case "poisson":
                top = log(self._largest_mean(self._bound(theta)))
                y = np.clip(label, 0.0, self._upper)
                mean = np.exp(np.minimum(eta, top))
                saturated = np.where(y > 0, y * np.log(np.where(y > 0, y, 1.0)), 0.0) - y
                return y[:, None] - mean, mean[:, :, None], (y, saturated, (mean - y[:, None] * eta)[:, 0])
        padded = np.concatenate([np.zeros((len(eta), 1)), eta], axis=1)
        norm = np.logaddexp.reduce(padded, axis=1)
        p = np.exp(eta - norm[:, None])
        hit = (label[:, None] == np.arange(1, self.classes + 1)).astype(float)
        weight = p[:, :, None] * np.eye(self.classes) - p[:, :, None] * p[:, None, :]
        return hit - p, weight, (hit.sum(axis=1), np.zeros_like(label), norm - (hit * eta).sum(axis=1))

    @cached_property
    def _rows_of(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.triu_indices(self.width)[0]

    @cached_property
    def _columns_of(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.triu_indices(self.width)[1]

    @cached_property
    def _factors(self) -> Floats:
        return np.where(self._rows_of == self._columns_of, 1.0, sqrt(2.0))

    # --- reading ---------------------------------------------------------------------------------------------------

    def moments(self, sums: Floats, theta: Floats, deviation: float) -> Moments:
        """See `Statistic`."""
        scale_g, scale_h, scale_m = self._scales(theta)
        hessian = np.zeros((self.width, self.width))
        hessian[self._rows_of, self._columns_of] = sums[self.width : -4] * (scale_h / WEIGHT_HESSIAN) / self._factors
        hessian = hessian + hessian.T - np.diag(np.diag(hessian))
        count, *totals = (float(total) * 2 / WEIGHT_TOTALS for total in sums[-4:])
        label, saturated, loss = (total * scale for total, scale in zip(totals, scale_m, strict=True))
        return Moments(
            gradient=sums[: self.width] * (scale_g / WEIGHT_GRADIENT),
            hessian=hessian,
            deviations=(
                deviation * scale_g / WEIGHT_GRADIENT,
                deviation * scale_h / WEIGHT_HESSIAN / sqrt(2.0),
            ),
            count=count,
            label=label,
            saturated=saturated,
            loss=loss,
        )

    def predict(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """See `Statistic`."""
        return self.mean(self.design.matrix(values), theta)

    def mean(self, x: Floats, theta: Floats) -> Floats:
        """Return predictions of rows of the design matrix: numbers, or shape (rows, classes + 1) probabilities."""
        eta = x @ self._by_class(theta).T
        match self.model:
            case "linear":
                mid, half = self.centre
                out: Floats = eta[:, 0] * half + mid
                return out
            case "poisson":
                return np.exp(np.minimum(eta[:, 0], _LARGEST_EXPONENT))
        padded = np.concatenate([np.zeros((len(eta), 1)), eta], axis=1)
        probabilities: Floats = np.exp(padded - np.logaddexp.reduce(padded, axis=1)[:, None])
        return probabilities


def _expit(eta: Floats) -> Floats:
    out: Floats = np.exp(-np.logaddexp(0.0, -eta))
    return out

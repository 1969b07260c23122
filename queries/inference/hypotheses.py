"""Tests whose p-values stay true under the noise.

Every statistic here is a contrast of noisy sums over the root of what sampling *and* noise make it vary by under the
null hypothesis. Without noise each is the textbook's, to the last digit; with noise a p-value below 0.05 still turns
up in one of twenty true null hypotheses. A naive chi-square, which takes noise for a difference, rejects half of them.

Contrasts are of sums, not of means: what is tested is s1 n2 = s2 n1, never s1 / n1 = s2 / n2, so that nothing is
divided by a noisy count before it is known to be large. Must not know: which columns, their bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from queries.inference.forms import Floats

_SURE = 3.0
"""A group counts as present where its noisy count is this many of its standard deviations above 0."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a test in every cell, each (cells,). `p_value` is 1 and `statistic` 0 where nothing can be told.

    `effect` is what a t test is about, a mean or a difference of means, and `effect_half` half the width of its 95%
    interval, which counts in sampling and noise; infinite where nothing can be told. `noise_share` is how much of the
    effect's variance is noise.
    """

    statistic: Floats
    freedom: Floats
    p_value: Floats
    effect: Floats | None = None
    effect_half: Floats | None = None
    noise_share: Floats | None = None


def mean_of_one(count: Floats, total: Floats, square: Floats, noise: Floats) -> Outcome:
    """Test that a mean is 0 from rows, sum and sum of squares of the difference from what it should be.

    `noise` (3,) or (cells, 3): the variances of the three; they are independent. At zero noise Student's t test.
    """
    noise = np.broadcast_to(noise, (count.size, 3))
    informed = count > np.maximum(_SURE * np.sqrt(noise[:, 0]), 1.0)
    rows = np.where(informed, count, 2.0)
    # rows times the sample variance; the noise in the squared sum is taken out
    spread = (square - (total * total - noise[:, 1]) / rows) * rows / (rows - 1)
    spread = np.maximum(spread, 0.0)
    variance = spread + noise[:, 1]
    doubt = 2 * spread**2 / (rows - 1) + noise[:, 2]
    return _student(total, variance, doubt, informed, per=rows, noise=noise[:, 1])


def means_of_two(
    counts: Floats, totals: Floats, squares: Floats, noise: tuple[float, float, float], *, equal_variances: bool
) -> Outcome:
    """Test that two means are equal; arrays are (cells, 2). At zero noise Student's, or Welch's t test.

    `noise`: the variance of the noise in every count, sum and sum of squares. The statistic is positive where the first
    mean is the larger.
    """
    informed = np.all(counts > max(_SURE * noise[0] ** 0.5, 1.0), axis=1)
    counts = np.where(informed[:, None], counts, 2.0)
    n1, n2 = counts.T
    n = n1 + n2
    mean = totals.sum(axis=1) / n
    contrast = (totals[:, 0] * n2 - totals[:, 1] * n1) / n
    # (n1 n2 / n) times the difference of means; its derivative by sums and counts at equal means
    by_sum = np.stack([n2, -n1], axis=1) / n[:, None]
    from_noise = np.sum(by_sum**2, axis=1) * (noise[1] + mean * mean * noise[0])
    deviations = squares - (totals * totals - noise[1]) / counts
    doubt_deviations = noise[2]
    if equal_variances:
        freedom = n - 2
        within = np.maximum(deviations.sum(axis=1), 0.0) / freedom
        sampling = within * n1 * n2 / n
        doubt = 2 * sampling**2 / freedom + (n1 * n2 / n / freedom) ** 2 * 2 * doubt_deviations
    else:
        own = np.maximum(deviations, 0.0) / (counts - 1)
        parts = own * np.stack([n2 * n2 * n1, n1 * n1 * n2], axis=1) / (n * n)[:, None]
        sampling = parts.sum(axis=1)
        doubt = np.sum(2 * parts**2 / (counts - 1), axis=1)
        weights = np.stack([n2 * n2 * n1, n1 * n1 * n2], axis=1) / (n * n)[:, None] / (counts - 1)
        doubt = doubt + np.sum(weights**2, axis=1) * doubt_deviations
    return _student(contrast, sampling + from_noise, doubt, informed, per=n1 * n2 / n, noise=from_noise)


def means_of_many(counts: Floats, totals: Floats, squares: Floats, noise: tuple[float, float, float]) -> Outcome:
    """Test that all groups' means are equal; arrays are (cells, groups). At zero noise one-way analysis of variance.

    `statistic` is F; `freedom` the denominator's.
    """
    groups = counts.shape[1]
    informed = np.all(counts > max(_SURE * noise[0] ** 0.5, 1.0), axis=1)
    counts = np.where(informed[:, None], counts, 2.0)
    n = counts.sum(axis=1)
    mean = totals.sum(axis=1) / n
    share = counts / n[:, None]
    contrast = totals - mean[:, None] * counts
    freedom = n - groups
    deviations = (squares - (totals * totals - noise[1]) / counts).sum(axis=1)
    within = np.maximum(deviations, 0.0) / freedom
    eye = np.eye(groups)
    project = eye - share[:, :, None]  # I - p 1'
    sampling = n[:, None, None] * (share[:, :, None] * eye - share[:, :, None] * share[:, None, :])
    per_noise = project @ project.transpose(0, 2, 1)
    from_noise = noise[1] + mean * mean * noise[0]
    covariance = within[:, None, None] * sampling + from_noise[:, None, None] * per_noise
    squared = _mahalanobis(contrast, covariance, groups - 1)
    doubt = 2 * within**2 / freedom + groups * noise[2] / freedom**2
    # the part of the denominator that is estimated, averaged over the contrast's directions
    unit = np.einsum("gii->g", per_noise) / np.maximum(np.einsum("gii->g", sampling), 1e-300)
    whole = within + from_noise * unit
    df = np.where(doubt > 0, 2 * whole**2 / np.where(doubt > 0, doubt, 1.0), np.inf)
    statistic = squared / (groups - 1)
    return _judged(statistic, df, _f_tail(statistic, groups - 1, df), informed & (whole > 0))


def independence(table: Floats, noise: Floats | float) -> Outcome:
    """Test that rows and columns of a table of counts, (cells, rows, columns), are independent.

    At zero noise Pearson's chi-square without a continuity correction. `noise` is the variance of the noise in a count.
    """
    _cells, height, width = table.shape
    total = table.sum(axis=(1, 2))
    down, across = table.sum(axis=2), table.sum(axis=1)
    informed = (total > 0) & np.all(down > _SURE * np.sqrt(noise * width), axis=1)
    informed &= np.all(across > _SURE * np.sqrt(noise * height), axis=1)
    n = np.where(informed, total, 1.0)
    p = np.where(informed[:, None], down, 1.0 / height) / n[:, None]
    q = np.where(informed[:, None], across, 1.0 / width) / n[:, None]
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    residual = table - n[:, None, None] * p[:, :, None] * q[:, None, :]
    # Residuals are (I - p 1') T (I - 1 q'), which maps sampling and noise alike: two Kronecker products.
    s_rows, s_columns = _multinomial(p), _multinomial(q)
    e_rows, e_columns = _projected(p), _projected(q)
    size = height * width
    covariance = n[:, None, None] * _kronecker(s_rows, s_columns) + noise * _kronecker(e_rows, e_columns)
    degrees = (height - 1) * (width - 1)
    statistic = _mahalanobis(residual.reshape(-1, size), covariance, degrees)
    from scipy.special import chdtrc

    freedom = np.full_like(statistic, degrees)
    return _judged(statistic, freedom, np.asarray(chdtrc(degrees, statistic)), informed)


def _multinomial(p: Floats) -> Floats:
    return p[:, :, None] * np.eye(p.shape[1]) - p[:, :, None] * p[:, None, :]


def _projected(p: Floats) -> Floats:
    project = np.eye(p.shape[1]) - p[:, :, None]
    return np.asarray(project @ project.transpose(0, 2, 1))


def _kronecker(left: Floats, right: Floats) -> Floats:
    cells, size = left.shape[0], left.shape[1] * right.shape[1]
    return np.asarray(np.einsum("gij,gkl->gikjl", left, right).reshape(cells, size, size))


def _mahalanobis(contrast: Floats, covariance: Floats, rank: int) -> Floats:
    """Return contrast' covariance^+ contrast over the `rank` largest eigenvalues; the others are 0 by construction."""
    values, vectors = np.linalg.eigh(covariance)
    along = np.einsum("gij,gi->gj", vectors, contrast)[:, -rank:]
    kept = values[:, -rank:]
    return np.asarray(np.sum(np.where(kept > 0, along * along / np.where(kept > 0, kept, 1.0), 0.0), axis=1))


def _student(
    contrast: Floats, variance: Floats, doubt: Floats, informed: np.ndarray, *, per: Floats, noise: Floats
) -> Outcome:
    """Return a t test of a contrast whose variance is estimated, with `doubt` its own variance (Satterthwaite 1946).

    `noise` is the part of the variance that the noise makes.
    The effect is the contrast divided by `per`.
    """
    from scipy.special import stdtr, stdtrit

    informed = informed & (variance > 0)
    error = np.sqrt(np.where(variance > 0, variance, 1.0))
    statistic = contrast / error
    freedom = np.where(doubt > 0, 2 * variance**2 / np.where(doubt > 0, doubt, 1.0), np.inf)
    usable = np.where(np.isfinite(freedom), np.maximum(freedom, 1.0), 1e12)
    outcome = _judged(statistic, freedom, 2 * np.asarray(stdtr(usable, -np.abs(statistic))), informed)
    half = np.where(informed, np.asarray(stdtrit(usable, 0.975)) * error / per, np.inf)
    share = np.where(informed, noise / np.where(variance > 0, variance, 1.0), 1.0)
    return replace(outcome, effect=contrast / per, effect_half=half, noise_share=share)


def _f_tail(statistic: Floats, above: int, below: Floats) -> Floats:
    from scipy.special import fdtrc

    usable = np.where(np.isfinite(below), np.maximum(below, 1.0), 1e12)
    return np.asarray(fdtrc(above, usable, np.maximum(statistic, 0.0)))


def _judged(statistic: Floats, freedom: Floats, p_value: Floats, informed: np.ndarray) -> Outcome:
    return Outcome(
        np.where(informed, statistic, 0.0), np.where(informed, freedom, 0.0), np.where(informed, p_value, 1.0)
    )

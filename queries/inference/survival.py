"""Survival curves and the log-rank test from counts of persons by time bin, arm and whether the event happened.

Times are those of a public grid: an event in a bin happened at its end, a censored person of the same bin was at risk
until then. On times rounded up to the grid, without noise, everything equals the textbook (Kaplan and Meier 1958;
Mantel 1966). Must not know: the grid's unit, who was counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from queries.inference.forms import Z95, Floats
from queries.inference.hypotheses import Outcome

_SURE = 4.0
"""A bin counts where this many standard deviations of the noise still leave somebody at risk in it."""

_CALM = 1.5
"""How many variances of a noisy number at risk are added to its square, whose inverse would be too large on average."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Survival after each bin with a 95% band, each (cells, bins), in [0, 1] and `value` never rising.

    `noise_share` is how much of the error's variance is noise.
    """

    value: Floats
    standard_error: Floats
    low: Floats
    high: Floats
    noise_share: Floats


def at_risk(events: Floats, censored: Floats) -> Floats:
    """Return who has neither left nor had the event before each bin, from counts by bin (the last axis)."""
    both = events + censored
    return np.flip(np.cumsum(np.flip(both, axis=-1), axis=-1), axis=-1)


def kaplan_meier(events: Floats, censored: Floats, noise: float, *, sampling: bool) -> Curve:
    """Return the curve of every cell from counts of shape (cells, bins) whose noise has variance `noise` each.

    Bands are pointwise, on the scale of -log S, the cumulated hazard, which the noise moves to both sides alike. With
    `sampling` they are for a population (Greenwood's variance added to that of the noise); without, for the curve that
    the exact data have.
    """
    risk = at_risk(events, censored)
    bins = events.shape[-1]
    left = bins - np.arange(bins)
    known = risk > np.maximum(_SURE * np.sqrt(2 * noise * left), 0.5)
    known = np.logical_and.accumulate(known, axis=-1)
    n = np.where(known, risk, 1.0)
    hazard = np.where(known, events / n, 0.0)
    hazard = np.minimum(hazard, 1.0)
    with np.errstate(divide="ignore"):
        steps = np.log1p(-hazard)
    log_survival = np.cumsum(steps, axis=-1)
    alive = np.exp(log_survival)
    calm = np.sqrt(n * n + _CALM * 2 * noise * left)
    variance = from_noise = _noise_of_log(hazard, calm, known, noise)
    if sampling:
        some = known & (hazard < 1)
        lost = np.where(some, hazard / np.where(some, n * (1 - hazard), 1.0), 0.0)
        variance = variance + np.cumsum(lost, axis=-1)
    value = np.clip(np.minimum.accumulate(alive, axis=-1), 0.0, 1.0)
    reach = Z95 * np.sqrt(np.maximum(variance, 0.0))
    low, high = np.exp(np.minimum(log_survival - reach, 0.0)), np.exp(np.minimum(log_survival + reach, 0.0))
    lost_track = ~known
    low, high = np.where(lost_track, 0.0, low), np.where(lost_track, np.minimum.accumulate(high, axis=-1), high)
    error = value * np.sqrt(np.maximum(variance, 0.0))
    share = np.where(known & (variance > 0), from_noise / np.where(variance > 0, variance, 1.0), 1.0)
    return Curve(value, np.where(lost_track, (high - low) / (2 * Z95), error), low, high, share)


def log_rank(events: Floats, censored: Floats, noise: float) -> Outcome:
    """Test that arms have the same hazard, from counts of shape (cells, arms, bins). `statistic` is chi-square.

    Its covariance is the hypergeometric one of the events plus what the noise of every count adds, which later bins
    feel through the number at risk.
    """
    from scipy.special import chdtrc

    cells, arms, bins = events.shape
    risk = at_risk(events, censored)
    left = bins - np.arange(bins)
    enough = np.all(risk > _SURE * np.sqrt(2 * noise * left), axis=1) if noise > 0 else risk.sum(axis=1) > 0
    enough = np.logical_and.accumulate(enough, axis=-1)
    n = np.where(enough, risk.sum(axis=1), 1.0)
    d = np.where(enough, events.sum(axis=1), 0.0)
    share = np.where(enough[:, None, :], risk / n[:, None, :], 0.0)
    observed = np.where(enough[:, None, :], events, 0.0)
    contrast = np.sum(observed - share * d[:, None, :], axis=2)
    room = np.where(n > 1, d * (n - d) / np.where(n > 1, n - 1, 1.0), 0.0)
    room = np.maximum(room, 0.0)
    positive = np.maximum(share, 0.0)
    sampling = np.einsum("gat,ab,gt->gab", positive, np.eye(arms), room)
    sampling = sampling - np.einsum("gat,gbt,gt->gab", positive, positive, room)
    pull = _log_rank_gradient(share, d / n, enough, arms)
    covariance = sampling + noise * pull
    values, vectors = np.linalg.eigh(covariance)
    along = np.einsum("gij,gi->gj", vectors, contrast)[:, 1:]
    kept = values[:, 1:]
    statistic = np.sum(np.where(kept > 0, along * along / np.where(kept > 0, kept, 1.0), 0.0), axis=1)
    informed = enough[:, 0] & np.all(kept > 0, axis=1)
    p_value = np.asarray(chdtrc(arms - 1, statistic))
    freedom = np.full(cells, float(arms - 1))
    return Outcome(np.where(informed, statistic, 0.0), freedom, np.where(informed, p_value, 1.0))


def _noise_of_log(hazard: Floats, n: Floats, known: np.ndarray, noise: float) -> Floats:
    """Return the variance of log S after each bin that the noise of the counts makes, (cells, bins).

    log S_t is a sum over bins i <= t of log(1 - d_i / n_i). An event of bin j adds to d_j, and to n_i of every bin up
    to j; someone censored in bin j only to the latter. With a_i = 1 / (n_i - d_i) and b_i = d_i / (n_i (n_i - d_i)),
    the derivative by an event of bin j is B_min(j,t) - a_j [j <= t], by a censored one B_min(j,t), B cumulated b.
    """
    survive = np.where(known & (hazard < 1), n * (1 - hazard), 1.0)
    a = np.where(known & (hazard < 1), 1 / survive, 0.0)
    cumulated = np.cumsum(np.where(known & (hazard < 1), hazard / survive, 0.0), axis=-1)
    bins = hazard.shape[-1]
    inside = np.cumsum(cumulated**2 + (cumulated - a) ** 2, axis=-1)  # bins j <= t
    beyond = 2 * cumulated**2 * (bins - 1 - np.arange(bins))  # bins j > t
    return np.asarray(noise * (inside + beyond))


def _log_rank_gradient(share: Floats, hazard: Floats, enough: np.ndarray, arms: int) -> Floats:
    """Return sum over counts of gradient gradient', (cells, arms, arms): what unit noise in each count adds.

    U_a = sum_t (d_at - n_at d_t / n_t). An event of arm b in bin j changes it by [a = b] - p_aj there, and through the
    numbers at risk, as a censored one does, by -sum_{t <= j} h_t ([a = b] - p_at), where h = d / n and p_a = n_a / n.
    """
    eye = np.eye(arms)
    tilt = eye[None, :, :, None] - share[:, :, None, :]  # (cells, a, b, bins)
    through = -np.cumsum(hazard[:, None, None, :] * tilt, axis=-1)
    direct = np.where(enough[:, None, None, :], tilt, 0.0)
    censored = np.einsum("gabt,gcbt->gac", through, through)
    event = np.einsum("gabt,gcbt->gac", through + direct, through + direct)
    return np.asarray(censored + event)

"""Linear regression from one noisy sum: AdaSSP (Wang 2018, "Revisiting differentially private linear regression",
Algorithm 2) with intervals that a reader can take at their word.

Coefficients come from the noisy normal equations. Where the noise could hide a direction of the predictors, a ridge
just large enough to make up for it keeps the point estimate from running away; with enough data it is zero. Intervals
never use the ridge: they hold every value t of a coefficient for which the normal equations, with that coefficient at t
and the others at their best, are within what the noise explains, as Fieller's theorem does for one ratio. They widen to
everything where the noise leaves no information.

Must not know: which columns the terms are, or their bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from queries.inference.forms import Z95, Floats

Places = NDArray[np.intp]
_DOUBT = 0.05
"""The chance, at most, that the noise in the normal matrix is larger than AdaSSP takes it to be."""


@dataclass(frozen=True, slots=True)
class Design:
    """Where the sums of a regression stand among the slots; -1 where a sum is 0 by rule.

    normal     (terms, terms), symmetric: the sum of the product of two terms; terms[0] is the constant, so that
               normal[0, 0] counts rows
    response   (terms,): the sum of term times response
    square     the sum of the response squared
    """

    normal: Places
    response: Places
    square: int


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted model. Arrays are (cells,) or, for coefficients, (cells, terms).

    `low` and `high` are 95% intervals, infinite where the noise leaves no information; `standard_error` is what they
    rest on, and `noise_share` how much of its square is noise. `ridge` is what AdaSSP added to the diagonal.
    """

    coefficients: Floats
    standard_error: Floats
    noise_share: Floats
    low: Floats
    high: Floats
    rows: Floats
    freedom: Floats
    deviance: Floats
    deviance_error: Floats
    null_deviance: Floats
    r_squared: Floats
    r_squared_error: Floats
    ridge: Floats


def fit(design: Design, moments: Floats, noise: Floats, rotation: Floats, *, sampling: bool) -> Fit:
    """Fit by least squares in every cell.

    `rotation` (terms, terms) maps coefficients of the design's terms to those reported. With `sampling` standard errors
    and intervals are for a population that the rows were drawn from, under the model's usual assumptions, and use
    Student's t; without, they are for the coefficients that the exact data have.
    """
    normal, response = _take(moments, design.normal), _take(moments, design.response)
    terms = design.normal.shape[0]
    ridge = _ridge(normal, design.normal, noise)
    eye = np.eye(terms)
    inverse = _inverse(normal)
    plain = np.einsum("gij,gj->gi", inverse, response)
    shrunk = np.einsum("gij,gj->gi", _inverse(normal + ridge[:, None, None] * eye), response)
    held = np.where(ridge[:, None] > 0, shrunk, plain)
    rows = normal[:, 0, 0]
    freedom = rows - terms
    doubt = _doubt(design, plain, inverse, noise)
    deviance, deviance_gradient = _deviance(design, moments, plain)
    null, null_gradient = _null_deviance(design, moments)
    squared = deviance_gradient**2 @ noise
    excess = _excess_of_deviance(design, plain, doubt, noise)
    calm = excess < squared / 4
    deviance_error = np.sqrt(np.where(calm, squared - excess, squared))
    kept = null > 0
    safe = np.where(kept, null, 1.0)
    r_squared = np.where(kept, 1 - deviance / safe, 0.0)
    r_gradient = -deviance_gradient / safe[:, None] + (deviance / safe**2)[:, None] * null_gradient
    # Least squares fits some of the noise, too. R squared keeps that: near 0 it could not cover otherwise.
    fitted = np.einsum("gij,gij->g", normal, doubt)
    deviance = np.where(calm, deviance + fitted, deviance)
    residual = np.where(freedom > 0, np.maximum(deviance, 0) / np.where(freedom > 0, freedom, 1.0), np.inf)
    quantile = _quantile(freedom) if sampling else np.full_like(rows, Z95)
    middle, error, low, high, share = _intervals(
        design,
        plain,
        inverse,
        doubt,
        noise=noise,
        rotation=rotation,
        quantile=quantile,
        residual=residual if sampling else np.zeros_like(rows),
    )
    sound = np.linalg.eigvalsh(normal)[:, 0] > 0
    low, high = np.where(sound[:, None], low, -np.inf), np.where(sound[:, None], high, np.inf)
    reported = np.where(ridge[:, None] > 0, held @ rotation.T, middle)
    return Fit(
        coefficients=np.clip(reported, low, high),
        standard_error=np.where(np.isfinite(high - low), error, np.inf),
        noise_share=share,
        low=low,
        high=high,
        rows=rows,
        freedom=freedom,
        deviance=deviance,
        deviance_error=deviance_error,
        null_deviance=null,
        r_squared=r_squared,
        r_squared_error=np.sqrt(r_gradient**2 @ noise),
        ridge=ridge,
    )


def _take(moments: Floats, places: Places) -> Floats:
    """Return moments at places, 0 where a place is -1."""
    return np.where(places >= 0, moments[:, np.maximum(places, 0)], 0.0)


def _inverse(normal: Floats) -> Floats:
    """Return inverses; where a matrix has none, that of its nearest one that has."""
    try:
        return np.asarray(np.linalg.inv(normal))
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.pinv(normal, hermitian=True))


def _ridge(normal: Floats, places: Places, noise: Floats) -> Floats:
    """AdaSSP's ridge: how far the smallest eigenvalue may be below what the noise in the matrix can amount to.

    A symmetric matrix of d^2 Gaussians of standard deviation s has a norm of at most s sqrt(d log(2 d^2 / doubt)) but
    with probability `doubt` (Wang 2018, Lemma 6).
    """
    terms = places.shape[0]
    largest = float(np.max(np.where(places >= 0, noise[np.maximum(places, 0)], 0.0)))
    reach = sqrt(largest * terms * log(2 * terms * terms / _DOUBT))
    smallest = np.maximum(np.linalg.eigvalsh(normal)[:, 0], 0.0)
    return np.asarray(np.maximum(reach - smallest, 0.0))


def _deviance(design: Design, moments: Floats, beta: Floats) -> tuple[Floats, Floats]:
    """Return the residual sum of squares and its derivative by the moments, which least squares makes exact in beta."""
    gradient = np.zeros_like(moments)
    gradient[:, design.square] += 1.0
    for i in range(design.normal.shape[0]):
        gradient[:, design.response[i]] -= 2 * beta[:, i]
        for j in range(design.normal.shape[0]):
            if design.normal[i, j] >= 0:
                gradient[:, design.normal[i, j]] += beta[:, i] * beta[:, j]
    return np.einsum("gk,gk->g", gradient, moments), gradient


def _null_deviance(design: Design, moments: Floats) -> tuple[Floats, Floats]:
    """Return the sum of squares around the mean, and its derivative by the moments."""
    rows, total = moments[:, design.normal[0, 0]], moments[:, design.response[0]]
    mean = total / np.where(rows > 0, rows, 1.0)
    gradient = np.zeros_like(moments)
    gradient[:, design.square] += 1.0
    gradient[:, design.response[0]] -= 2 * mean
    gradient[:, design.normal[0, 0]] += mean * mean
    return moments[:, design.square] - mean * total, gradient


def _intervals(
    design: Design,
    beta: Floats,
    inverse: Floats,
    doubt: Floats,
    *,
    noise: Floats,
    rotation: Floats,
    quantile: Floats,
    residual: Floats,
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return coefficients, standard errors, intervals, and the share of noise in the errors' squares: (cells, terms).

    With w the coefficient's row of the inverse, w'(A beta - b) is how far the equations are from holding; its variance
    is quadratic in beta, and along the line on which the other coefficients follow, quadratic in t. Where beta
    enters it as the noisy estimate that it is, the variance would be too large: see `_excess`.
    """
    out = np.empty((5, *beta.shape))
    for j, row in enumerate(rotation):
        weights = np.einsum("gij,i->gj", inverse, row)  # A is symmetric, so this is row' A^-1
        scale = weights @ row
        along = weights / np.where(scale != 0, scale, 1.0)[:, None]
        fixed = _pull(design, weights, beta, noise.size, with_response=True)
        moving = _pull(design, weights, along, noise.size, with_response=False)
        flat = (fixed * fixed) @ noise
        excess = _excess(_reach(design, weights, noise.size), doubt, noise)
        from_noise = flat = np.where(excess < flat / 4, flat - excess, flat)
        flat = flat + np.where(scale > 0, residual * np.where(scale > 0, scale, 1.0), 0.0)
        tilt = (fixed * moving) @ noise
        steep = (moving * moving) @ noise
        spread = quantile * quantile
        # (t - value)^2 <= spread (flat + 2 (t - value) tilt + (t - value)^2 steep)
        lead = 1 - spread * steep
        inner = spread * flat * lead + (spread * tilt) ** 2
        known = (lead > 0) & (inner >= 0) & (flat >= 0)
        root = np.sqrt(np.where(known, inner, 0.0))
        safe = np.where(known, lead, 1.0)
        value = beta @ row
        out[0, :, j] = value
        out[1, :, j] = np.sqrt(np.maximum(flat, 0.0))
        out[2, :, j] = np.where(known, value + (spread * tilt - root) / safe, -np.inf)
        out[3, :, j] = np.where(known, value + (spread * tilt + root) / safe, np.inf)
        out[4, :, j] = np.where(known & (flat > 0), from_noise / np.where(flat > 0, flat, 1.0), 1.0)
    return out[0], out[1], out[2], out[3], out[4]


def _pull(design: Design, weights: Floats, beta: Floats, size: int, *, with_response: bool) -> Floats:
    """Return how much each moment's noise moves weights'(A beta - b), (cells, slots); without b if not asked for."""
    out = np.zeros((beta.shape[0], size))
    for i in range(design.normal.shape[0]):
        if with_response:
            out[:, design.response[i]] -= weights[:, i]
        for j in range(design.normal.shape[0]):
            if design.normal[i, j] >= 0:
                out[:, design.normal[i, j]] += weights[:, i] * beta[:, j]
    return out


def _doubt(design: Design, beta: Floats, inverse: Floats, noise: Floats) -> Floats:
    """Return the covariance matrix of the coefficients of u under the noise alone, (cells, terms, terms)."""
    pulls = [_pull(design, inverse[:, j], beta, noise.size, with_response=True) for j in range(beta.shape[1])]
    return np.asarray(np.einsum("aGk,bGk,k->Gab", np.array(pulls), np.array(pulls), noise))


def _reach(design: Design, weights: Floats, size: int) -> Floats:
    """Return the derivative of `_pull` by each coefficient, (cells, slots, terms), without b."""
    terms = design.normal.shape[0]
    out = np.zeros((weights.shape[0], size, terms))
    for i in range(terms):
        for j in range(terms):
            if design.normal[i, j] >= 0:
                out[:, design.normal[i, j], j] += weights[:, i]
    return out


def _excess(derivative: Floats, doubt: Floats, noise: Floats) -> Floats:
    """Return by how much the variance of a sum over slots is overestimated where coefficients are off by their doubt.

    Its estimate gains d' doubt d in expectation. Half of that is real, as for a quadratic form z'Qz in Gaussians, whose
    variance is v |2Qz|^2 + 2 v^2 tr(QQ) where the noisy z says v |2Qz|^2 + 4 v^2 tr(QQ).
    """
    return np.asarray(np.einsum("gka,gab,gkb,k->g", derivative, doubt, derivative, noise, optimize=True)) / 2


def _excess_of_deviance(design: Design, beta: Floats, doubt: Floats, noise: Floats) -> Floats:
    derivative = 2 * _reach(design, beta, noise.size)
    for i, place in enumerate(design.response):
        derivative[:, place, i] -= 2.0
    return _excess(derivative, doubt, noise)


def _quantile(freedom: Floats) -> Floats:
    """Return the 97.5% quantile of Student's t."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(np.maximum(freedom, 1.0), 0.975))

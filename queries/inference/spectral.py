"""Covariance matrices that are ones, and principal components (AnalyzeGauss, Dwork, Talwar, Thakurta and Zhang 2014).

Noise is added to second moments once; everything else follows from the noisy matrix. Must not know: which columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from queries.inference.forms import Z95, Floats

_TURNED = 0.15
"""Radians by which the noise may turn a component before its loadings tell nothing."""


@dataclass(frozen=True, slots=True)
class Components:
    """Principal components in falling order of variance.

    variances  (cells, components), with `error` their standard deviation under the noise, `low` and `high`
    loadings   (cells, components, columns) unit vectors, the largest entry positive, with their intervals
    """

    variances: Floats
    error: Floats
    low: Floats
    high: Floats
    loadings: Floats
    loadings_low: Floats
    loadings_high: Floats


def nearest_psd(matrix: Floats) -> Floats:
    """Return the nearest positive semi-definite matrices in Frobenius norm, (cells, n, n) (Higham 1988)."""
    values, vectors = np.linalg.eigh((matrix + matrix.transpose(0, 2, 1)) / 2)
    return np.asarray(np.einsum("gij,gj,gkj->gik", vectors, np.maximum(values, 0.0), vectors))


def covariance_matrix(
    linear: NDArray[np.intp], second: NDArray[np.intp], moments: Floats, noise: Floats, scale: Floats, *, ddof: int
) -> tuple[Floats, Floats]:
    """Return matrices (cells, n, n) and their derivatives by the moments (cells, n, n, slots).

    `linear` (n,) and `second` (n, n) say where sums and sums of products stand; slot 0 counts rows. `scale` (n,) turns
    units of u into the columns' own.
    """
    size, cells = linear.size, moments.shape[0]
    n = np.maximum(moments[:, 0], ddof + 1.0)
    below = n * n - ddof * n
    matrix = np.empty((cells, size, size))
    gradient = np.zeros((cells, size, size, moments.shape[1]))
    for i in range(size):
        for j in range(size):
            x, y, p = moments[:, linear[i]], moments[:, linear[j]], moments[:, second[i, j]]
            unit = scale[i] * scale[j]
            bias = noise[linear[i]] if i == j else 0.0
            value = (n * p - x * y + bias) / below
            matrix[:, i, j] = unit * value
            gradient[:, i, j, second[i, j]] += unit * n / below
            gradient[:, i, j, linear[i]] -= unit * y / below
            gradient[:, i, j, linear[j]] -= unit * x / below
            gradient[:, i, j, 0] += unit * (p - value * (2 * n - ddof)) / below
    return matrix, gradient


def principal_components(matrix: Floats, gradient: Floats, noise: Floats) -> Components:
    """Return the components of covariance matrices, to second order in the noise.

    With e_ij = v_i' E v_j an eigenvalue moves by e_ii + sum_j e_ij^2 / (l_i - l_j), an eigenvector by the sum over the
    others of e_ij / (l_i - l_j) v_j. The second order is taken out of the variances, as far as it can be told, and its
    size counts into their error. Loadings of a component that the noise may have turned by more than `_TURNED` are
    anything between -1 and 1.
    """
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    flip = np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None, :], axis=1))
    vectors = vectors * np.where(flip == 0, 1.0, flip)
    size = values.shape[1]
    others = ~np.eye(size, dtype=bool)
    moved = np.einsum("gai,gabk,gbj->gijk", vectors, gradient, vectors)  # v_i' dC v_j by each moment
    spread = moved**2 @ noise
    gap = values[:, :, None] - values[:, None, :]
    least = np.sqrt(spread)  # eigenvalues closer than what the noise does to them are that far apart, for all we know
    apart = np.where(others, np.where(gap < 0, -1.0, 1.0) * np.maximum(np.maximum(np.abs(gap), least), 1e-100), 1.0)
    second = np.where(others, spread / apart, 0.0).sum(axis=2)
    error = np.sqrt(np.einsum("gii->gi", spread) + second**2)
    turn = np.where(others[..., None], moved / apart[..., None], 0.0)
    loadings_by = np.einsum("gcj,gijk->gick", vectors, turn)  # component i, column c
    loadings_error = np.sqrt(loadings_by**2 @ noise)
    turned = np.where(others, spread / apart**2, 0.0).sum(axis=2) > _TURNED**2
    loadings = vectors.transpose(0, 2, 1)
    reach = np.where(turned[:, :, None], np.inf, Z95 * loadings_error)
    value = np.maximum(values - second, 0.0)
    return Components(
        variances=value,
        error=error,
        low=np.maximum(values - second - Z95 * error, 0.0),
        high=np.maximum(values - second + Z95 * error, 0.0),
        loadings=loadings,
        loadings_low=np.maximum(loadings - reach, -1.0),
        loadings_high=np.minimum(loadings + reach, 1.0),
    )

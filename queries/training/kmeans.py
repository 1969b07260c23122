"""k-means as rounds of sums: persons join the nearest centre, and centres move to the noisy means (Lloyd 1982).

A row adds to the block of its own cluster

    a_n 1 | a_s x / sqrt d | a_q x^2 / sqrt d

with x the row's numbers, scaled to run from -1 to 1, and an indicator of every key of its categories, of d columns of
data in all: so its norm is at most 1 wherever the centres are. Two rows of different keys are sqrt 2 apart, two numbers
at most 2. The first centres are as far apart as a public seed can place them,
and know nothing of the data (sphere packing; Su, Cao, Li, Bertino, Jin 2016, "Differentially Private k-Means
Clustering"). Must not know: noise, where rows come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from queries.schema import Dataset
from queries.training.design import Floats, make_design
from queries.training.job import Job
from queries.training.options import Clusters
from queries.training.statistics import Moments

WEIGHT_COUNT, WEIGHT_SUMS, WEIGHT_SQUARES = sqrt(0.15), sqrt(0.75), sqrt(0.10)
_HALVINGS = 24
_TRIES = 100


class Clustering:
    """See `statistics.Statistic`. A model is the centres, (count, columns), row by row."""

    def __init__(self, job: Job, dataset: Dataset, how: Clusters) -> None:
        self.design = make_design(job, dataset)
        self.how = how
        self.columns = self.design.width
        self.width = how.count * self.columns
        self.root = sqrt(self.design.row_norm_squared)
        of_numbers = [self.design.centres.get(name) for name in self.design.names]
        self.lower = np.array([0.0 if found is None else -1.0 for found in of_numbers])
        """Of each column of the matrix: where it begins; all end at 1."""
        self.units = np.array([found or (0.0, 1.0) for found in of_numbers])
        """Of each column of the matrix (mid, half) in the data's units, shape (columns, 2)."""
        self._each = 1 + 2 * self.columns
        self.length = self.work = how.count * self._each

    def initial(self) -> Floats:
        """Return centres two radii or more from each other and one from the bounds, the largest radius found."""
        low, high = 0.0, 1.0
        best = self._packed(0.0)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            found = self._packed(middle)
            if found is None:
                high = middle
            else:
                low, best = middle, found
        assert best is not None  # noqa: S101 - with a radius of 0 every point fits
        return best.reshape(-1)

    def _packed(self, radius: float) -> Floats | None:
        random = np.random.Generator(np.random.PCG64(self.how.seed))
        centres = np.empty((self.how.count, self.columns))
        for place in range(self.how.count):
            for _ in range(_TRIES):
                unit = (2 * random.random(self.columns) - 1) * (1 - radius)
                point = np.where(self.lower < 0, unit, (unit + 1) / 2)
                if not place or ((centres[:place] - point) ** 2).sum(axis=1).min() >= (2 * radius) ** 2:
                    centres[place] = point
                    break
            else:
                return None
        return centres

    def predict(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """Return the number of each row's nearest centre, from 0."""
        return self._nearest(self.design.matrix(values), theta).astype(np.float64)

    def _nearest(self, x: Floats, theta: Floats) -> NDArray[np.int64]:
        centres = theta.reshape(self.how.count, self.columns)
        found: NDArray[np.int64] = ((centres**2).sum(axis=1) - 2 * x @ centres.T).argmin(axis=1)
        return found

    def rows(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """See `statistics.Statistic`."""
        x = self.design.matrix(values)
        out = np.zeros((len(x), self.length))
        grid = out.reshape(len(x), self.how.count, self._each)
        block = np.empty((len(x), self._each))
        block[:, 0] = WEIGHT_COUNT
        block[:, 1 : 1 + self.columns] = x * (WEIGHT_SUMS / self.root)
        block[:, 1 + self.columns :] = x**2 * (WEIGHT_SQUARES / self.root)
        grid[np.arange(len(x)), self._nearest(x, theta)] = block
        return out

    def read(self, sums: Floats) -> tuple[Floats, Floats, Floats]:
        """Return counts (k,), sums (k, columns) and sums of squares (k, columns) on the scale of -1 to 1."""
        grid = sums.reshape(self.how.count, self._each)
        return (
            grid[:, 0] / WEIGHT_COUNT,
            grid[:, 1 : 1 + self.columns] * (self.root / WEIGHT_SUMS),
            grid[:, 1 + self.columns :] * (self.root / WEIGHT_SQUARES),
        )

    def deviations(self, deviation: float) -> tuple[float, float, float]:
        """Return the noise's standard deviation in what `read` returns."""
        return deviation / WEIGHT_COUNT, deviation * self.root / WEIGHT_SUMS, deviation * self.root / WEIGHT_SQUARES

    def moments(self, sums: Floats, theta: Floats, deviation: float) -> Moments:
        """Clusters have no moments: they are read by `read`."""
        del sums, theta, deviation
        raise TypeError("a clustering has no moments")

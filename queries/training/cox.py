"""Cox's proportional hazards on a public time grid, as one sum: see `statistics`.

A row adds (1, x, xx') exp(x theta - bound) to the cell of its own time; risk sets are the sums over that and all later
cells, taken after the noise. Ties within a cell are Breslow's (Biometrics 1974); with a grid that keeps times apart the
result is the exact partial likelihood's. Must not know: what `statistics` must not.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, sqrt

import numpy as np
from numpy.typing import NDArray

from queries.errors import QueryError
from queries.schema import Dataset
from queries.training.design import Design, Floats
from queries.training.job import Job
from queries.training.statistics import WEIGHT_EVENTS, WEIGHT_RISK, Moments

_CLEAR = 5.0
"""Risk sets below so many standard deviations of their noise are left out."""
_ENOUGH = 0.8
"""Share of the events that must be in other cells."""


class Cox:
    """See `statistics.Statistic`."""

    def __init__(self, job: Job, dataset: Dataset, design: Design) -> None:
        self.design = design
        self._label, self._event = job.label, job.event
        self._bounds = dataset.numeric(job.label)
        self.edges: Floats = np.asarray(job.edges)
        self.cells = len(job.edges) - 1
        self.width = design.width
        self._rows_of, self._columns_of = np.triu_indices(self.width)
        self._factors = np.where(self._rows_of == self._columns_of, 1.0, sqrt(2.0))
        self._each = 1 + self.width + len(self._rows_of)
        self.length = self.work = self.cells * (self._each + 1) + self.width
        norm = design.row_norm_squared
        self._risk_norm = sqrt(1 + norm + norm**2)
        self._event_norm = sqrt(1 + norm)

    def _lift(self, theta: Floats) -> float:
        return self.design.largest_predictor(theta)

    def rows(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """See `statistics.Statistic`."""
        x = self.design.matrix(values)
        cell = self.cell_of(values[self._label])
        happened = (values[self._event] == 1).astype(float)
        weight = np.exp(x @ theta - self._lift(theta))
        products = x[:, self._rows_of] * x[:, self._columns_of] * self._factors
        risk = np.concatenate([np.ones((len(x), 1)), x, products], axis=1) * weight[:, None]
        out = np.zeros((len(x), self.length))
        grid = out[:, : self.cells * self._each].reshape(len(x), self.cells, self._each)
        places = np.arange(len(x))
        grid[places, cell] = risk * (WEIGHT_RISK / self._risk_norm)
        scale = WEIGHT_EVENTS / self._event_norm
        out[places, self.cells * self._each + cell] = happened * scale
        out[:, -self.width :] = x * (happened * scale)[:, None]
        return out

    def predict(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """Return log hazard ratios, against a person in the middle of every column's bounds."""
        out: Floats = self.design.matrix(values) @ theta
        return out

    def cell_of(self, time: Floats) -> NDArray[np.int64]:
        """Return the cell of the grid that each time lies in."""
        inside = np.clip(time, self._bounds.lower, self._bounds.upper)
        return np.clip(np.searchsorted(self.edges, inside, side="right") - 1, 0, self.cells - 1)

    def moments(self, sums: Floats, theta: Floats, deviation: float) -> Moments:
        """See `statistics.Statistic`. Cells whose risk set the noise drowns add nothing."""
        scale_r, scale_e = self._risk_norm / WEIGHT_RISK, self._event_norm / WEIGHT_EVENTS
        grid = sums[: self.cells * self._each].reshape(self.cells, self._each) * scale_r
        events = sums[self.cells * self._each : -self.width] * scale_e
        at_risk = np.cumsum(grid[::-1], axis=0)[::-1]
        noise = deviation * scale_r * np.sqrt(np.arange(self.cells, 0, -1))
        usable = at_risk[:, 0] > np.maximum(_CLEAR * noise, 1e-300)
        seen = float(np.maximum(events, 0.0)[usable].sum())
        if seen < _ENOUGH * float(np.maximum(events, 0.0).sum()):
            raise QueryError(
                "the noise drowns the risk sets, so nothing can be said of hazards",
                hint="spend more epsilon, use fewer times or predictors, or columns with narrower published bounds",
            )
        total, events = at_risk[usable, 0], events[usable]
        mean = at_risk[usable, 1 : 1 + self.width] / total[:, None]
        second = at_risk[usable, 1 + self.width :] / total[:, None]
        products = second - mean[:, self._rows_of] * mean[:, self._columns_of] * self._factors
        half = events @ products
        hessian = np.zeros((self.width, self.width))
        hessian[self._rows_of, self._columns_of] = half / self._factors
        hessian = hessian + hessian.T - np.diag(np.diag(hessian))
        happened = sums[-self.width :] * scale_e
        # Of the gradient the events' share alone: that of the risk sets is found by drawing (`newton`). Of the Hessian
        # what the risk sets' noise comes to in the quotients, weighted by the events.
        relative = float(np.sqrt(((events * noise[usable] / total) ** 2).sum()))
        return Moments(
            gradient=happened - events @ mean,
            hessian=hessian,
            deviations=(deviation * scale_e, max(relative, deviation * scale_e)),
            count=float(at_risk[0, 0]) * exp(min(self._lift(theta), 700.0)),
            label=float(events.sum()),
            saturated=0.0,
            loss=float(events @ (np.log(total) + self._lift(theta)) - happened @ theta),
        )

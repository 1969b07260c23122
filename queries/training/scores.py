"""What a person adds to the evaluation of a model: one cell, found by the model's prediction and the truth.

A category's cells are (predicted chance, truth) for two classes, (predicted class, truth) for more; a number's vector
holds the error and its square beside the truth's; a time's cells are (risk, time, event). One cell a person: the
vector's norm is 1 by itself, so an evaluation is as precise as a histogram. Must not know: noise, where rows come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import numpy as np

from queries.errors import QueryError
from queries.schema import Categorical, Dataset
from queries.training.cox import Cox
from queries.training.design import Floats
from queries.training.job import Job
from queries.training.statistics import Moments, Statistic

BINS = 20
"""Equal bins of a predicted chance; one begins at 1/2, so that accuracy at that threshold is exact."""
RISKS = 24
"""Bins of a linear predictor between its public bounds."""
ERROR_NUMBERS = 5


class Scores:
    """An evaluation's released sum, in the shape of `statistics.Statistic`: of the model that the job states, or of the
    one that a round of training is asked at. `width` counts the numbers that are asked at, one of no meaning for the
    first.
    """

    def __init__(self, job: Job, dataset: Dataset, model: Statistic) -> None:
        if job.scored and len(job.scored) != model.width:
            raise QueryError("the model to evaluate has another size than the job's")
        self.design = model.design
        self.model = model
        self.job = job
        self.theta: Floats = np.asarray(job.scored)
        self.width = 1 if job.scored else model.width
        kind = dataset.column(job.label).kind
        self.classes = len(kind.keys) if isinstance(kind, Categorical) else 0
        if not isinstance(kind, Categorical):
            self.centre = (kind.lower / 2 + kind.upper / 2, kind.upper / 2 - kind.lower / 2)
        if isinstance(model, Cox):
            self.shape: tuple[int, ...] = (RISKS, model.cells, 2)
        elif self.classes == 2:
            self.shape = (BINS, 2)
        else:
            self.shape = (self.classes, self.classes) if self.classes else (ERROR_NUMBERS,)
        self.length = self.work = int(np.prod(self.shape))

    def rows(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """See `Statistic`; the model that is asked at matters where the job does not state one."""
        theta = self.theta if self.job.scored else theta
        truth = values[self.job.label]
        out = np.zeros((len(truth), self.length))
        predicted = self.model.predict(values, theta)
        if not isinstance(self.model, Cox):
            if not self.classes:
                return self._errors(predicted, truth)
            sound = np.asarray(np.isfinite(predicted).all(axis=1)) & (truth >= 0) & (truth < self.classes)
            if self.classes == 2:
                score = np.clip((np.nan_to_num(predicted[:, 1]) * BINS).astype(np.int64), 0, BINS - 1)
            else:
                score = np.nan_to_num(predicted).argmax(axis=1)
            cell = score * self.classes + np.nan_to_num(truth).astype(np.int64).clip(0, self.classes - 1)
        else:
            sound = np.asarray(np.isfinite(predicted) & np.isfinite(truth))
            share = (np.nan_to_num(predicted) / max(self.design.largest_predictor(theta), 1e-9) + 1) / 2
            bin_ = np.clip((share * RISKS).astype(np.int64), 0, RISKS - 1)
            event = (values[self.job.event] == 1).astype(np.int64)
            cell = (bin_ * self.model.cells + self.model.cell_of(np.nan_to_num(truth))) * 2 + event
        out[np.arange(len(truth)), cell] = sound
        return out

    def _errors(self, predicted: Floats, truth: Floats) -> Floats:
        mid, half = self.centre
        y = np.clip((truth - mid) / half, -1.0, 1.0)
        error = np.clip((predicted - truth) / (2 * half), -1.0, 1.0)
        columns = [np.ones_like(y), error, error**2, y, y**2]
        return np.stack(columns, axis=1) / sqrt(ERROR_NUMBERS)

    def predict(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """Return what the evaluated model predicts."""
        return self.model.predict(values, self.theta if self.job.scored else theta)

    def moments(self, sums: Floats, theta: Floats, deviation: float) -> Moments:
        """An evaluation has no moments: it is read by `evaluation`."""
        del sums, theta, deviation
        raise TypeError("an evaluation has no moments")

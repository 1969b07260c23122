"""Models trained by gradients: how many numbers they have, where they start, and what they predict.

A network's numbers lie in one vector, layer by layer, each layer's weights (inputs, outputs) row by row before its
biases. Its first weights come from the job's public seed. Predictions are computed here, gradients where the data are.
Must not know: PyTorch, noise, rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import sqrt

import numpy as np

from queries.errors import QueryError
from queries.schema import Categorical, Dataset
from queries.training.descent import NETWORKS, Descent
from queries.training.design import Design, Floats, make_design
from queries.training.job import Job
from queries.training.layers import Convolution, Layer, convolutions, dense
from queries.training.statistics import Glm, Moments


class Gradients:
    """What a round by gradients releases: see `statistics.Statistic`, whose shape it has."""

    def __init__(self, job: Job, dataset: Dataset, how: Descent) -> None:
        self.design: Design = make_design(job, dataset)
        self.how = how
        self.job = job
        self.network = job.model in NETWORKS
        kind = dataset.column(job.label).kind
        self.classes = len(kind.keys) if isinstance(kind, Categorical) else 0
        self.centre = (0.0, 1.0)
        if not isinstance(kind, Categorical):
            self.centre = (kind.lower / 2 + kind.upper / 2, kind.upper / 2 - kind.lower / 2)
        self.package = job.package
        self.glm = None if self.network or self.package else Glm(job, dataset, self.design)
        self.layers = self._layers() if self.network else ()
        self.width = self._width()
        self.length = self.width
        self.work = max(self.width, sum(layer.work for layer in self.layers))

    def _width(self) -> int:
        if self.package is not None:
            return self.package.width
        return self.glm.width if self.glm is not None else sum(layer.width for layer in self.layers)

    def _layers(self) -> tuple[Layer, ...]:
        how, outputs = self.how, max(1, self.classes)
        if not how.filters:
            return dense((self.design.width, *how.hidden, outputs))
        convolved, left = convolutions(how.shape, how.filters, how.kernel, how.pool)
        return (*convolved, *dense((left, *how.hidden, outputs)))

    def initial(self) -> Floats:
        """Return the first model: zeros, or a network's weights after He et al. 2015, uniform, from the public seed."""
        out = np.zeros(self.width)
        random = np.random.Generator(np.random.PCG64(self.how.seed))
        start = 0
        if self.package is not None:
            for count, spread in self.package.blocks:
                out[start : start + count] = (2 * random.random(count) - 1) * spread
                start += count
        for layer in self.layers:
            count, bound = layer.inputs * layer.outputs, sqrt(6 / layer.inputs)
            out[start : start + count] = (2 * random.random(count) - 1) * bound
            start += layer.width
        return out

    def parts(self, theta: Floats) -> Iterator[tuple[Floats, Floats]]:
        """Yield weights (inputs, outputs) and biases (outputs,) of each layer."""
        start = 0
        for layer in self.layers:
            middle, end = start + layer.inputs * layer.outputs, start + layer.width
            yield theta[start:middle].reshape(layer.inputs, layer.outputs), theta[middle:end]
            start = end

    def arrange(self, x: Floats) -> Floats:
        """Return rows of the design matrix as the first layer takes them: images (rows, channels, height, width)."""
        if not self.how.filters:
            return x
        return x[:, 1:].reshape(len(x), *self.how.shape).transpose(0, 3, 1, 2)

    def label(self, values: Mapping[str, Floats]) -> Floats:
        """Return the label as a network sees it: codes of categories, numbers scaled to [-1, 1]."""
        given = values[self.job.label]
        if self.classes:
            return given
        mid, half = self.centre
        return np.clip((given - mid) / half, -1.0, 1.0)

    def predict(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """See `statistics.Statistic`."""
        return self.mean(self.design.matrix(values), theta)

    def mean(self, x: Floats, theta: Floats) -> Floats:
        """Return predictions of rows of the design matrix, as `Glm.mean` does."""
        if self.glm is not None:
            return self.glm.mean(x, theta)
        if self.package is not None:
            raise QueryError(
                f"only the package {self.package.name!r} can predict with its model",
                hint="give it model.theta, and model.inputs(frame) as what it predicts from",
            )
        x = self.arrange(x)
        for layer, (weights, biases) in zip(self.layers, self.parts(theta), strict=True):
            if not isinstance(layer, Convolution):
                x = x.reshape(len(x), -1)
            x = layer.forward(x, weights, biases)
            if layer is not self.layers[-1]:
                x = np.maximum(x, 0.0)
        if not self.classes:
            mid, half = self.centre
            out: Floats = x[:, 0] * half + mid
            return out
        probabilities: Floats = np.exp(x - np.logaddexp.reduce(x, axis=1)[:, None])
        return probabilities

    def rows(self, values: Mapping[str, Floats], theta: Floats) -> Floats:
        """Return each row's gradient of the loss, divided by the clip: what is longer than 1 is clipped later.

        Regressions only: a network's come from where PyTorch is.
        """
        if self.glm is None:
            raise TypeError("gradients of a network are computed by the agent")
        return self.glm.gradients(values, theta) / self.how.clip

    def moments(self, sums: Floats, theta: Floats, deviation: float) -> Moments:
        """A gradient has no moments: it is read by `course`."""
        del sums, theta, deviation
        raise TypeError("a model trained by gradients has no moments")

"""scikit-learn's `SGDClassifier` as a model of a package. Must not know: jobs, agents."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import SGDClassifier

from analytics_client.models import Block, Singles

LOSSES = ("log_loss", "hinge", "squared_hinge")


class SgdModel:
    """A linear classifier, one against the rest; each gradient is what one `partial_fit` of rate 1 takes off.

    Numbers lie as in `coef_`, row by row, then `intercept_`. Of two categories there is one row, which says the second.
    """

    def __init__(self, inputs: int, outputs: int, *, loss: str = "log_loss") -> None:
        if outputs < 2 or loss not in LOSSES:
            raise ValueError(f"SGDClassifier predicts one of 2 or more categories, by {', '.join(LOSSES)}")
        self._inputs, self._rows, self._loss = inputs, 1 if outputs == 2 else outputs, loss
        self._classes = np.arange(outputs)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """See `PackageModel`."""
        return ((self._rows * (self._inputs + 1), 0.0),)

    def classifier(self, theta: Singles) -> SGDClassifier:
        """Return a fitted classifier with these numbers."""
        found = SGDClassifier(loss=self._loss, penalty=None, learning_rate="constant", eta0=1.0)
        found.partial_fit(np.zeros((1, self._inputs)), self._classes[:1], classes=self._classes)
        split = self._rows * self._inputs
        found.coef_ = np.array(theta[:split], dtype=np.float64).reshape(self._rows, self._inputs)
        found.intercept_ = np.array(theta[split:], dtype=np.float64)
        return found

    def gradient(self, theta: Singles, x: Singles, y: float) -> Singles:
        """See `PackageModel`."""
        found = self.classifier(theta)
        found.partial_fit(np.asarray(x, dtype=np.float64)[None, :], np.array([int(y)]))
        after = np.concatenate([found.coef_.ravel(), found.intercept_])
        out: Singles = (np.asarray(theta, dtype=np.float64) - after).astype(np.float32)
        return out

    def loss(self, theta: Singles, x: Singles, y: float) -> float:
        """See `PackageModel`."""
        scores = np.atleast_1d(self.classifier(theta).decision_function(np.asarray(x, dtype=np.float64)[None, :])[0])
        wanted = np.array([y > 0]) if self._rows == 1 else self._classes == int(y)
        margins = np.where(wanted, 1.0, -1.0) * scores
        if self._loss == "log_loss":
            return float(np.logaddexp(0.0, -margins).sum())
        hinges = np.maximum(0.0, 1.0 - margins)
        return float((hinges if self._loss == "hinge" else hinges**2).sum())

"""A trained model as scikit-learn sees it: fitted, with `predict`, `predict_proba`, `score` and the names it was given.

Imported only where scikit-learn is installed and asked for. Must not know: how the model came to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd

from queries.errors import ConfigError, QueryError

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, ClusterMixin, RegressorMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise ConfigError("this needs scikit-learn", hint="pip install scikit-learn") from None

if TYPE_CHECKING:
    from analytics_client.training.models import Trained


class _Fitted(BaseEstimator):  # type: ignore[misc]
    """Predicts by a model. It was trained by a session: `fit` says so."""

    def __init__(self, model: Trained | None = None) -> None:
        self.model = model

    @property
    def feature_names_in_(self) -> Any:
        """Names of the columns that it reads, in the order of an array without names."""
        check_is_fitted(self)
        assert self.model is not None  # noqa: S101 - it is fitted
        names = dict.fromkeys(name for term in self.model.job.terms for name in term)
        return np.array(list(names), dtype=object)

    @property
    def n_features_in_(self) -> int:
        """How many columns it reads."""
        return len(self.feature_names_in_)

    def fit(self, X: Any, y: Any = None) -> NoReturn:  # noqa: N803 - scikit-learn's names
        """Raise QueryError: a federated model is trained by `Session.train`."""
        del X, y
        raise QueryError("this model is trained already, where the data are", hint="session.train trains another one")

    def __sklearn_is_fitted__(self) -> bool:
        return self.model is not None

    def __sklearn_clone__(self) -> _Fitted:
        return self

    def _predicted(self, X: Any) -> Any:  # noqa: N803
        check_is_fitted(self)
        assert self.model is not None  # noqa: S101 - it is fitted
        if not hasattr(X, "columns"):
            table = np.asarray(X)
            if table.ndim != 2 or table.shape[1] != self.n_features_in_:
                raise ValueError(
                    f"X has shape {table.shape}; {self.n_features_in_} columns are expected: "
                    f"{', '.join(self.feature_names_in_)}"
                )
            X = pd.DataFrame(table, columns=self.feature_names_in_)  # noqa: N806
        return self.model.predict(X)


class FederatedClassifier(ClassifierMixin, _Fitted):  # type: ignore[misc]
    """Predicts one of the published categories of its label."""

    @property
    def classes_(self) -> Any:
        """The published categories, in the order of `predict_proba`'s columns."""
        check_is_fitted(self)
        assert self.model is not None  # noqa: S101 - it is fitted
        return np.array(self.model.plan.dataset.categorical(self.model.job.label).keys)

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """Return the chance of each category, (rows, categories)."""
        return self._predicted(X)

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Return the likeliest category of each row."""
        return self.classes_[self._predicted(X).argmax(axis=1)]


class FederatedRegressor(RegressorMixin, _Fitted):  # type: ignore[misc]
    """Predicts a number."""

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Return the expected label of each row, in its own unit."""
        return self._predicted(X)


class FederatedClusterer(ClusterMixin, _Fitted):  # type: ignore[misc]
    """Predicts which cluster a row is nearest to."""

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Return the number of each row's cluster."""
        return self._predicted(X).astype(np.int64)


def estimator_of(model: Trained) -> FederatedClassifier | FederatedRegressor | FederatedClusterer:
    """Return the estimator that fits a model. Raise QueryError for "cox"."""
    from queries.schema import Categorical

    if model.job.model == "cox":
        raise QueryError("scikit-learn has no hazards", hint="model.predict gives log hazard ratios")
    if model.job.model == "kmeans":
        return FederatedClusterer(model)
    if isinstance(model.plan.dataset.column(model.job.label).kind, Categorical):
        return FederatedClassifier(model)
    return FederatedRegressor(model)

"""Trained models: what they predict, how they are saved and shown. Must not know: how their rounds were verified."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analytics_client.result import Cost
from analytics_client.training.rounds import EvaluatedRound, Round, VerifiedRounds
from queries.accounting import NANO
from queries.errors import ConfigError, QueryError
from queries.training import clusters, forest, newton
from queries.training.design import Floats
from queries.training.gradients import Gradients
from queries.training.job import Job
from queries.training.plan import JobPlan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analytics_client import model_plots


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model: every number in it follows from releases that are in the audit log.

    `theta` are its numbers on the unit scale. `complete` is False where the job ended early: then the model is that of
    the rounds it had; a job that its own stopping rule ended is `complete`. `cost` is what those rounds cost, those of
    `evaluations` among them, spare and unused ones not.
    """

    plan: JobPlan
    theta: Floats
    request_id: str
    cost: Cost
    rounds: tuple[Round, ...]
    complete: bool
    log_size: int
    evaluations: tuple[EvaluatedRound, ...] = field(kw_only=True, default=())

    @property
    def job(self) -> Job:
        """What was asked."""
        return self.plan.job

    @property
    def losses(self) -> tuple[float, ...]:
        """The mean loss of a person at the start of each round, as the noise left it; empty where none was paid for."""
        return ()

    @property
    def participants(self) -> tuple[str, ...]:
        """Every institution whose data are in some round, sorted."""
        return tuple(sorted({name for round_ in self.rounds for name in round_.survivors}))

    def predict(self, columns: Any) -> Any:
        """Return predictions for a mapping or frame of the model's columns, values as published.

        Shape (rows,) for numbers and log hazard ratios, (rows, classes) probabilities in the order of the published
        categories. Raise QueryError where a column is missing.
        """
        return self.plan.statistic.predict(self._values(columns), self.theta)

    def inputs(self, columns: Any) -> NDArray[np.float32]:
        """Return what a package's model sees of such columns, shape (rows, inputs): numbers scaled, and indicators."""
        return self.plan.statistic.design.matrix(self._values(columns))[:, 1:].astype(np.float32)

    def _values(self, columns: Any) -> dict[str, Floats]:
        design = self.plan.statistic.design
        values = {}
        for name in {factor for term in self.job.terms for factor in term}:
            try:
                column = columns[name]
            except KeyError:
                raise QueryError(f"the model needs column {name!r} to predict") from None
            if name in design.categories:
                codes = {key: float(code) for code, key in enumerate(design.categories[name])}
                values[name] = np.array([codes.get(str(value), float("nan")) for value in column])
            else:
                values[name] = np.asarray(column, dtype=np.float64)
        return values

    def save(self, path: Path) -> None:
        """Write the weights as safetensors, with what they are in its metadata. Raise ConfigError without safetensors.

        A network's layers are `layer0.weight` (inputs, outputs), `layer0.bias` and so on; a regression has `theta`.
        """
        try:
            from safetensors.numpy import save_file
        except ImportError:
            raise ConfigError("writing weights needs safetensors", hint="pip install safetensors") from None
        statistic = self.plan.statistic
        tensors = {"theta": self.theta}
        if isinstance(statistic, Gradients) and statistic.network:
            tensors = {}
            for number, (weights, biases) in enumerate(statistic.parts(self.theta)):
                tensors[f"layer{number}.weight"] = np.ascontiguousarray(weights)
                tensors[f"layer{number}.bias"] = np.ascontiguousarray(biases)
        save_file(tensors, path, metadata={"cohortium": self.to_json(), "columns": ", ".join(statistic.design.names)})

    def to_dict(self) -> dict[str, Any]:
        """Return everything but a network's weights as plain values; `to_json` and `--json` print exactly this."""
        return {
            "dataset": self.job.dataset,
            "question": self.job.shape,
            "model": self.job.model,
            "complete": self.complete,
            "weights": len(self.theta),
            "cost": {"epsilon": self.cost.epsilon, "rho": self.cost.rho, "delta": self.cost.delta},
            "rounds": [
                {"number": r.number, "survivors": list(r.survivors), "invited": r.invited, "log_seq": r.log_seq}
                for r in self.rounds
            ],
            "evaluations": [
                {
                    "rounds": each.round.number,
                    "log_seq": each.round.log_seq,
                    "metrics": each.evaluation.to_dict(),
                }
                for each in self.evaluations
            ],
            "request_id": self.request_id,
            "log_size": self.log_size,
        }

    def to_json(self) -> str:
        """Return `to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def card(self) -> str:
        """Return a model card in Markdown: what it is, on whose data, at which privacy cost, and where the proof is."""
        from analytics_client.model_card import card

        return card(self)

    def __str__(self) -> str:
        from analytics_client.render import to_text
        from analytics_client.render_models import model_table

        return to_text(model_table(self))

    def to_sklearn(self) -> Any:
        """Return a fitted scikit-learn estimator that predicts by this model.

        Raise ConfigError without scikit-learn, QueryError for "cox", which has no counterpart there.
        """
        from analytics_client.training.estimator import estimator_of

        return estimator_of(self)

    def plot(self, kind: model_plots.Kind | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw the model and return matplotlib's axes: see `model_plots.plot`."""
        from analytics_client import model_plots

        return model_plots.plot(self, kind, ax=ax)


@dataclass(frozen=True, eq=False)
class GradientModel(Trained):
    """A model trained by gradients. What the noise did to it is not known; held-out rows tell what it is worth."""

    @property
    def values(self) -> dict[str, float]:
        """A regression's coefficients in the data's own units, without intervals; empty for a network."""
        statistic = self.plan.statistic
        if not isinstance(statistic, Gradients) or statistic.glm is None:
            return {}
        return newton.values_of(self.plan, self.theta)

    def to_dict(self) -> dict[str, Any]:
        """As `Trained.to_dict`, with a regression's coefficients."""
        return super().to_dict() | {"coefficients": [{"name": n, "value": v} for n, v in self.values.items()]}


@dataclass(frozen=True, eq=False)
class TrainedModel(Trained):
    """A regression by Newton steps, with intervals."""

    fit: newton.Fit

    @property
    def losses(self) -> tuple[float, ...]:
        """See `Trained.losses`; of "cox" per event."""
        return self.fit.losses

    @property
    def coefficients(self) -> tuple[newton.Coefficient, ...]:
        """The coefficients in the data's own units, each with its interval."""
        return self.fit.coefficients

    def coefficient(self, name: str) -> newton.Coefficient:
        """Return one by its name, as in `coefficients`. Raise KeyError where there is none."""
        for found in self.coefficients:
            if found.name == name:
                return found
        raise KeyError(f"no coefficient {name!r}; there are {', '.join(c.name for c in self.coefficients)}")

    def to_dict(self) -> dict[str, Any]:
        """As `Trained.to_dict`, with coefficients, deviances and the noisy count."""
        fit = self.fit
        return super().to_dict() | {
            "coefficients": [asdict(coefficient) for coefficient in self.coefficients],
            "converged": fit.converged,
            "count": fit.count,
            "deviance": fit.deviance,
            "null_deviance": fit.null_deviance,
            "log_likelihood": fit.log_likelihood,
        }

    def to_pandas(self) -> Any:
        """Return the coefficients as a frame indexed by name."""
        import pandas as pd

        return pd.DataFrame([asdict(coefficient) for coefficient in self.coefficients]).set_index("name")


@dataclass(frozen=True, eq=False)
class ClusterModel(Trained):
    """Clusters of persons, each with a noisy size, a centre and intervals."""

    fit: clusters.ClusterFit

    @property
    def clusters(self) -> tuple[clusters.Cluster, ...]:
        """The clusters in the order of their numbers, which `predict` returns."""
        return self.fit.clusters

    @property
    def coefficients(self) -> tuple[newton.Coefficient, ...]:
        """Every coordinate of every clear cluster, named "cluster: column"."""
        return tuple(each for cluster in self.clusters if cluster.clear for each in cluster.centre)

    @property
    def losses(self) -> tuple[float, ...]:
        """The sum of squared distances to the centres in each round, columns scaled to run from -1 to 1."""
        return self.fit.losses

    def to_dict(self) -> dict[str, Any]:
        """As `Trained.to_dict`, with the clusters."""
        return super().to_dict() | {
            "clusters": [asdict(cluster) for cluster in self.clusters],
            "inertia": self.fit.inertia,
            "converged": self.fit.converged,
            "losses": list(self.losses),
        }

    def to_pandas(self) -> Any:
        """Return one row a cluster: its size, and its centre in the data's units."""
        import pandas as pd

        names = self.plan.statistic.design.names
        rows = [
            {"size": each.size, "clear": each.clear}
            | {name: part.value for name, part in zip(names, each.centre, strict=True)}
            for each in self.clusters
        ]
        return pd.DataFrame(rows).rename_axis("cluster")


@dataclass(frozen=True, eq=False)
class TreeModel(Trained):
    """Boosted trees. What the noise did to them is not known; held-out rows tell what they are worth."""

    grown: forest.Grown

    @property
    def losses(self) -> tuple[float, ...]:
        """See `Trained.losses`: log loss, or for a number half the squared error on the scale of -1 to 1."""
        return self.grown.losses

    @property
    def gains(self) -> dict[str, float]:
        """How much of the loss the splits on each column took away, with its noise; empty for random splits."""
        return self.grown.gains

    def to_dict(self) -> dict[str, Any]:
        """As `Trained.to_dict`, with the number of complete trees, each round's loss and each column's gain."""
        return super().to_dict() | {"trees": self.grown.trees, "losses": list(self.losses), "gains": self.gains}


def model_of(plan: JobPlan, verified: VerifiedRounds, request_id: bytes) -> Trained:
    """Return the model of a job's verified rounds. Raise QueryError where there is none, or no good one."""
    count = len(verified.rounds)
    if plan.job.scored:
        raise QueryError("this job evaluates a model and trains none", hint="session.evaluate returned what it says")
    releases = verified.releases[:-1] if verified.diverged else verified.releases
    if not releases:
        raise QueryError("the job ended before its first round gave a model: there is none")
    paid, evaluations = count + len(verified.evaluations), verified.evaluations
    cost = Cost(paid * plan.round_rho_nano / NANO, plan.epsilon(paid), plan.dataset.delta)
    complete = (count == plan.job.rounds or verified.stopped) and not verified.diverged
    head = request_id.hex(), cost, verified.rounds, complete, verified.log_size
    if plan.job.gradual is not None:
        return GradientModel(plan, verified.theta, *head, evaluations=evaluations)
    if plan.job.clusters is not None:
        found = clusters.fit(plan, releases)
        return ClusterModel(plan, found.theta, *head, found)
    if plan.job.trees is not None:
        grown = forest.fit(plan, releases)
        return TreeModel(plan, grown.theta, *head, grown, evaluations=evaluations)
    fit = newton.fit(plan, releases)
    return TrainedModel(plan, fit.theta, *head, fit, evaluations=evaluations)

"""Trained models: what they predict, how they are saved and shown. Must not know: how their rounds were verified."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analytics_client.result import Cost
from analytics_client.training.rounds import Round, VerifiedRounds
from queries.accounting import NANO
from queries.errors import ConfigError, QueryError
from queries.training import newton
from queries.training.design import Floats
from queries.training.gradients import Gradients
from queries.training.job import Job
from queries.training.plan import JobPlan


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model: every number in it follows from releases that are in the audit log.

    `theta` are its numbers on the unit scale. `complete` is False where the job ended early: then the model is that of
    the rounds it had. `cost` is what those rounds cost, spare and unused ones not among them.
    """

    plan: JobPlan
    theta: Floats
    request_id: str
    cost: Cost
    rounds: tuple[Round, ...]
    complete: bool
    log_size: int

    @property
    def job(self) -> Job:
        """What was asked."""
        return self.plan.job

    @property
    def participants(self) -> tuple[str, ...]:
        """Every institution whose data are in some round, sorted."""
        return tuple(sorted({name for round_ in self.rounds for name in round_.survivors}))

    def predict(self, columns: Any) -> Any:
        """Return predictions for a mapping or frame of the model's columns, values as published.

        Shape (rows,) for numbers and log hazard ratios, (rows, classes) probabilities in the order of the published
        categories. Raise QueryError where a column is missing.
        """
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
        return self.plan.statistic.predict(values, self.theta)

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
        from analytics_client.render import model_table, to_text

        return to_text(model_table(self))


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


def model_of(plan: JobPlan, verified: VerifiedRounds, request_id: bytes) -> Trained:
    """Return the model of a job's verified rounds. Raise QueryError where there is none, or no good one."""
    count = len(verified.rounds)
    if plan.job.scored:
        raise QueryError("this job evaluates a model and trains none", hint="session.evaluate returned what it says")
    releases = verified.releases[:-1] if verified.diverged else verified.releases
    if not releases:
        raise QueryError("the job ended before its first round gave a model: there is none")
    cost = Cost(count * plan.round_rho_nano / NANO, plan.epsilon(count), plan.dataset.delta)
    complete = count == plan.job.rounds and not verified.diverged
    named = request_id.hex()
    if plan.job.gradual is not None:
        return GradientModel(plan, verified.theta, named, cost, verified.rounds, complete, verified.log_size)
    fit = newton.fit(plan, releases)
    return TrainedModel(plan, fit.theta, named, cost, verified.rounds, complete, verified.log_size, fit)

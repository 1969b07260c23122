"""Tables of jobs, models and evaluations, for people. Layout only, like `render`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from analytics_client.render import compact, grid

if TYPE_CHECKING:
    from rich.console import RenderableType

    from analytics_client.jobs import JobListing
    from analytics_client.training import (
        ClusterModel,
        EvaluationResult,
        JobExplanation,
        Trained,
        TrainedModel,
        TreeModel,
    )

Parts: TypeAlias = tuple[list[str], list[list[str]], list[str]]
"""Columns, rows, notes."""


def job_table(explanation: JobExplanation) -> RenderableType:
    """Return what a training job would disclose and cost."""
    return grid(["", ""], explanation.lines(), title=explanation.plan.dataset.name)


def model_table(model: Trained) -> RenderableType:
    """Return what is known of a model: coefficients with their intervals, clusters, or what trees took away."""
    from analytics_client.training import ClusterModel, GradientModel, TrainedModel, TreeModel

    rounds = model.rounds
    notes: list[str] = []
    columns, rows = ["", ">estimate"], [["weights", f"{len(model.theta):,}"]]
    if isinstance(model, TrainedModel):
        columns, rows, notes = _regression(model)
    elif isinstance(model, ClusterModel):
        columns, rows, notes = _clusters(model)
    elif isinstance(model, TreeModel):
        columns, rows, notes = _trees(model)
    elif isinstance(model, GradientModel) and model.values:
        rows = [[name, f"{value:.4g}"] for name, value in model.values.items()]
    notes.append(
        f"{len(rounds)} of {model.job.rounds} rounds, {len(model.participants)} institutions:"
        f" {', '.join(model.participants)}"
    )
    if model.evaluations:
        last = model.evaluations[-1]
        said = ", ".join(f"{m.name} {compact(m.value, m.low, m.high)[0]}" for m in last.evaluation.metrics)
        on = "persons held out" if model.job.split else "the persons it was trained on"
        notes.append(f"evaluated {len(model.evaluations)} times on {on}; after round {last.round.number}: {said}")
    notes.append(f"{model.cost} · logged as entries {rounds[0].log_seq} to {rounds[-1].log_seq}")
    return grid(columns, rows, title=f"{model.job.dataset}: {model.job.shape}", notes=notes)


def _regression(model: TrainedModel) -> Parts:
    rows, notes, fit = [], [], model.fit
    for c in model.coefficients:
        value, low, high = compact(c.value, c.low, c.high)
        rows.append([c.name, value, f"{low} … {high}", f"± {c.value - c.pooled_low:.2g}"])
    if not fit.converged:
        notes.append("NOT CONVERGED: these intervals do not hold. More rounds, more epsilon or a little ridge help")
    if fit.deviance is not None:
        null = f", of a model without predictors {fit.null_deviance:.6g}" if fit.null_deviance is not None else ""
        notes.append(f"deviance {fit.deviance:.6g}{null}")
    if fit.log_likelihood is not None:
        notes.append(f"log-likelihood {fit.log_likelihood:.6g}")
    return ["", ">estimate", "95% interval", "of it noise"], rows, notes


def _clusters(model: ClusterModel) -> Parts:
    names = model.plan.statistic.design.names
    rows = []
    for number, cluster in enumerate(model.clusters):
        size, low, high = compact(cluster.size, cluster.size_low, cluster.size_high)
        centre = [f"{compact(c.value, c.low, c.high)[0]} ± {c.value - c.low:.2g}" for c in cluster.centre]
        rows.append([str(number), size, f"{low} … {high}", *(centre if cluster.clear else ["noise"] * len(names))])
    notes = [f"sum of squared distances {model.fit.inertia:.4g}, columns scaled to run from -1 to 1"]
    if not model.fit.converged:
        notes.insert(0, "NOT CONVERGED: the centres still moved in the last round. More rounds help")
    if not all(cluster.clear for cluster in model.clusters):
        notes.append("Clusters of noise hold too few persons to be told from none: ask for fewer clusters")
    return ["cluster", ">persons", "95% interval", *(f">{name}" for name in names)], rows, notes


def _trees(model: TreeModel) -> Parts:
    rows = [["complete trees", str(model.grown.trees)]]
    if model.losses:
        rows += [["loss of the first round", f"{model.losses[0]:.3g}"], ["loss of the last", f"{model.losses[-1]:.3g}"]]
    largest = sorted(model.gains.items(), key=lambda item: -item[1])
    rows += [[f"gain of {name}", f"{gain:.3g}"] for name, gain in largest if gain > 0]
    return ["", ">estimate"], rows, ["losses and gains are as the noise left them"]


def evaluation_table(result: EvaluationResult) -> RenderableType:
    """Return a model's measures with their intervals."""
    rows = []
    for metric in result.metrics:
        value, low, high = compact(metric.value, metric.low, metric.high)
        rows.append([metric.name, value, f"{low} … {high}"])
    notes = [f"{len(result.survivors)} institutions: {', '.join(result.survivors)}"]
    notes.append(f"{result.cost} · logged as entry {result.log_seq}")
    return grid(["", ">estimate", "95% interval"], rows, title=f"{result.dataset}: {result.question}", notes=notes)


def jobs_table(listings: Iterable[JobListing]) -> RenderableType:
    """Return an analyst's jobs."""
    rows = [
        [job.request_id[:12], job.state, f"{job.rounds} of {job.rounds_asked}", job.dataset, job.question, job.reason]
        for job in listings
    ]
    return grid(["job", "state", ">rounds", "dataset", "trains", "reason"], rows)

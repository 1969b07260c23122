"""A model card: what a model is, on whose data it was trained, what that cost in privacy, and how to check all this."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analytics_client.training import ClusterModel, Trained, TreeModel


def card(model: Trained) -> str:
    """Return the card in Markdown, after Mitchell et al., "Model Cards for Model Reporting" (2019)."""
    from analytics_client.training import ClusterModel, GradientModel, TrainedModel, TreeModel

    job, cost = model.job, model.cost
    invited = max((round_.invited for round_ in model.rounds), default=0)
    lines = [
        f"# {job.model.capitalize()} model of {job.label or 'groups of persons'} ({job.dataset})",
        "",
        f"- **Asked**: {job.shape}",
        *([f"- **Package**: {job.package.name}, wheel SHA-256 {job.package.sha256}"] if job.package else []),
        f"- **Trained**: {len(model.rounds)} of {job.rounds} rounds"
        + ("" if model.complete else "; the job ended early, this is the model it had reached")
        + (f"; ended by its rule of {job.patience} evaluations that are no better" if _stopped(model) else ""),
        f"- **Institutions**: {len(model.participants)} of {invited} invited: {', '.join(model.participants)}",
        f"- **Privacy**: {cost}, for a person, against the analyst, the public and the coordinator",
        f"- **Proof**: request {model.request_id}; releases are entries "
        + ", ".join(str(round_.log_seq) for round_ in model.rounds)
        + f" of an audit log of {model.log_size} entries. `cohortium audit show SEQ` shows each of them",
        "",
        *_evaluations(model),
    ]
    if isinstance(model, TrainedModel):
        if not model.fit.converged:
            lines += [
                "**Not converged**: the intervals below do not hold; more rounds, or a little ridge, may help.",
                "",
            ]
        lines += [
            "| coefficient | value | standard error | 95% interval | of which noise |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {c.name} | {c.value:.6g} | {c.standard_error:.3g} | {c.low:.6g} to {c.high:.6g} | {c.noise_error:.3g} |"
            for c in model.coefficients
        ]
        lines += [
            "",
            "Intervals are about the population that the persons were drawn from. They include sampling and the noise.",
        ]
    elif isinstance(model, GradientModel):
        lines += [f"- {name}: {value:.6g}" for name, value in model.values.items()]
        lines += [f"The model has {len(model.theta):,} numbers; its noise is known, its effect on each of them is not."]
    elif isinstance(model, ClusterModel):
        lines += _clusters(model)
    elif isinstance(model, TreeModel):
        lines += _trees(model)
    lines += [
        "",
        "Values were clipped to the published bounds; rows without a value in a column of the model are not in it.",
        "",
    ]
    return "\n".join(lines)


def _stopped(model: Trained) -> bool:
    return model.complete and len(model.rounds) < model.job.rounds


def _evaluations(model: Trained) -> list[str]:
    if not model.evaluations:
        return []
    names = [metric.name for metric in model.evaluations[0].evaluation.metrics]
    on = "persons held out of training" if model.job.split else "the persons it was trained on"
    lines = [f"Evaluated on the way, on {on}, with 95% intervals for them:", ""]
    lines += [f"| after round | {' | '.join(names)} | log entry |", "|---|" + "---|" * (len(names) + 1)]
    for each in model.evaluations:
        cells = [f"{m.value:.4g} ({m.low:.4g} to {m.high:.4g})" for m in each.evaluation.metrics]
        lines.append(f"| {each.round.number} | {' | '.join(cells)} | {each.round.log_seq} |")
    return [*lines, ""]


def _clusters(model: ClusterModel) -> list[str]:
    names = model.plan.statistic.design.names
    lines = [] if model.fit.converged else ["**Not converged**: the centres still moved in the last round.", ""]
    lines += [
        f"| cluster | persons | {' | '.join(names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    for number, cluster in enumerate(model.clusters):
        parts = [f"{c.value:.6g} ({c.low:.6g} to {c.high:.6g})" if cluster.clear else "noise" for c in cluster.centre]
        size = f"{cluster.size:,.0f} ({cluster.size_low:,.0f} to {cluster.size_high:,.0f})"
        lines.append(f"| {number} | {size} | {' | '.join(parts)} |")
    return [
        *lines,
        "",
        "Intervals hold for the boundaries between clusters as they are; they include sampling and the noise.",
    ]


def _trees(model: TreeModel) -> list[str]:
    how = model.job.trees
    assert how is not None  # noqa: S101 - the job has trees
    lines = [
        f"{model.grown.trees} of {how.count} trees of depth {how.depth}, {how.splits} splits, learning rate"
        f" {how.learning_rate:g}. The noise is known, its effect on each tree is not.",
    ]
    gains = sorted(model.gains.items(), key=lambda item: -item[1])
    return lines + [f"- gain of {name}: {gain:.4g}" for name, gain in gains if gain > 0]

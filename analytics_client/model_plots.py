"""Pictures of a trained model and of what it is worth: forests of coefficients, learning curves, calibration.

Must not know: the network, where a picture goes.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from analytics_client.plots import axes_for
from queries.errors import QueryError
from queries.training.evaluation import HEADLINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analytics_client.training import EvaluationResult, Trained

Kind = Literal["forest", "curve", "gains"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_COLOUR, _SECOND, _GREY = "#33658a", "#b8562f", "#888888"
_NOTE_WIDTH = 95


def plot(model: Trained, kind: Kind | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw a model and return the axes.

    "forest": coefficients, or centres of clusters, with their 95% intervals, the default where there are any. "curve":
    the loss of each round, as the noise left it. "gains": what splits on each column took away. Raise ConfigError
    without matplotlib, QueryError where the model has nothing of the kind.
    """
    if kind is not None and kind not in KINDS:
        raise QueryError(f"there is no picture of kind {kind!r}", hint=f"one of {', '.join(KINDS)}")
    chosen = kind or ("forest" if getattr(model, "coefficients", ()) else "curve")
    ax = axes_for(ax)
    {"forest": _forest, "curve": _curve, "gains": _gains}[chosen](ax, model)
    _title(ax, model.job.shape, f"{len(model.participants)} institutions; {len(model.rounds)} rounds; {model.cost}")
    return ax


def plot_calibration(result: EvaluationResult, *, ax: Axes | None = None) -> Axes:
    """Draw, per bin of predicted chance, the share that came true with its interval, and return the axes.

    Raise ConfigError without matplotlib, QueryError where the model does not predict one of two categories.
    """
    points = result.evaluation.calibration
    if not points:
        raise QueryError(
            "there is nothing to calibrate", hint="it takes a model of two categories, and bins that noise leaves clear"
        )
    ax = axes_for(ax)
    middle, share, low, high = (np.array(part) for part in zip(*points, strict=True))
    ax.plot([0, 1], [0, 1], color=_GREY, lw=0.8, ls=":")
    ax.errorbar(middle, share, yerr=_errors(share, low, high), fmt="o", color=_COLOUR, capsize=3, ms=5)
    ax.set(xlim=(0, 1), ylim=(-0.05, 1.05), xlabel="predicted chance", ylabel="share that came true")
    _title(ax, result.question, f"{len(result.survivors)} institutions; {result.cost}; with 95% intervals")
    return ax


def _forest(ax: Axes, model: Trained) -> None:
    coefficients = [c for c in getattr(model, "coefficients", ()) if c.name != "(intercept)"]
    if not coefficients:
        raise QueryError("this model has no coefficients with intervals", hint='kind="curve"')
    value, low, high = (np.array([getattr(c, name) for c in coefficients]) for name in ("value", "low", "high"))
    place = np.arange(len(coefficients))[::-1]
    ax.errorbar(value, place, xerr=_errors(value, low, high), fmt="o", color=_COLOUR, capsize=3, ms=5)
    if model.job.model != "kmeans":
        ax.axvline(0, color=_GREY, lw=0.8, ls=":")
    ax.set_yticks(place, [c.name for c in coefficients], fontsize=8)
    ax.set_ylim(-0.7, len(coefficients) - 0.3)
    ax.set_xlabel("in each column's unit, with 95% intervals")


def _curve(ax: Axes, model: Trained) -> None:
    if not model.losses and not model.evaluations:
        raise QueryError(
            "no loss was paid for in this job's rounds",
            hint="evaluate_every pays for evaluations, and session.evaluate tells what the model is worth",
        )
    ax.set_xlabel("round")
    if model.losses:
        ax.plot(np.arange(1, len(model.losses) + 1), model.losses, marker="o", ms=4, color=_COLOUR, label="in training")
        ax.set_ylabel("sum of squared distances" if model.job.model == "kmeans" else "loss of a person, with its noise")
    if model.evaluations:
        _evaluated(ax if not model.losses else ax.twinx(), model)


def _evaluated(ax: Axes, model: Trained) -> None:
    """Draw the measure that tells best how training went on, with its intervals."""
    names = {metric.name for metric in model.evaluations[0].evaluation.metrics}
    name = next(name for name in HEADLINES if name in names)
    found = [each.evaluation[name] for each in model.evaluations]
    value, low, high = (np.array([getattr(each, part) for each in found]) for part in ("value", "low", "high"))
    at = [each.round.number for each in model.evaluations]
    ax.errorbar(at, value, yerr=_errors(value, low, high), fmt="s-", color=_SECOND, capsize=3, ms=4)
    ax.set_ylabel(f"{name} {'held out' if model.job.split else 'evaluated'}, with 95% intervals", color=_SECOND)


def _gains(ax: Axes, model: Trained) -> None:
    gains: dict[str, float] = getattr(model, "gains", {})
    if not gains:
        raise QueryError("this model has no gains", hint='boosting with splits = "histogram" has')
    names = sorted(gains, key=lambda name: gains[name])
    ax.barh(names, [gains[name] for name in names], color=_COLOUR)
    ax.set_xlabel("loss that splits took away, with its noise")


def _errors(value: Any, low: Any, high: Any) -> Any:
    return np.stack([np.maximum(value - low, 0), np.maximum(high - value, 0)])


def _title(ax: Axes, title: str, note: str) -> None:
    note = textwrap.fill(note, _NOTE_WIDTH)
    ax.set_title(textwrap.fill(title, 80), fontsize=10, loc="left", pad=10 + 10 * (note.count("\n") + 1))
    ax.annotate(note, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=7, color="#555555", va="bottom")
    ax.spines[["top", "right"]].set_visible(False)

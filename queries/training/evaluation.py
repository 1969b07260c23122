"""From an evaluation's release to what a model is worth: accuracy, AUC, calibration, RMSE, C-index, with intervals.

Intervals cover the value that the pooled rows have; they come from drawing the noise again, whose distribution is
public, around what was released. Must not know: data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from queries.estimate import Z95
from queries.training.design import Floats
from queries.training.plan import JobPlan
from queries.training.scores import BINS, ERROR_NUMBERS, Scores

_DRAWS = 500
_SHARES = ("accuracy", "balanced_accuracy", "auc", "sensitivity", "specificity", "brier", "c_index")
_RANGES = dict.fromkeys(_SHARES, (0.0, 1.0)) | dict.fromkeys(("persons", "events", "loss", "rmse"), (0.0, np.inf))
"""What a measure can be, whatever the noise says. NaN, where there is nothing to divide by, stays."""
HEADLINES = ("loss", "rmse", "c_index", "accuracy")
"""Of these, the first that an evaluation has tells best how training goes on."""
Measures = Callable[[Floats], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One measure of a model; `low` and `high` are its 95% interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on the rows it was evaluated on.

    `table` holds the noisy counts as `shape` says: (chance bin, truth), (predicted, truth) or (risk, time, event);
    `count_error` is the noise's standard deviation in each. `calibration` has, per bin of predicted chance, the middle
    of the bin, the share of the second category, and its interval.
    """

    metrics: tuple[Metric, ...]
    table: Floats
    count_error: float
    calibration: tuple[tuple[float, float, float, float], ...]

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return every measure with its interval, by name, as plain values."""
        return {m.name: {"value": m.value, "low": m.low, "high": m.high} for m in self.metrics}

    def __getitem__(self, name: str) -> Metric:
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(f"no measure {name!r}; there are {', '.join(m.name for m in self.metrics)}")


def evaluate(plan: JobPlan, sums: Floats, deviation: float) -> Evaluation:
    """Return what the sums of an evaluation say; `deviation` is the noise's in each of them."""
    statistic = plan.statistic
    if not isinstance(statistic, Scores):
        raise TypeError("this job is no evaluation")
    measures = _measures(statistic)
    values = measures(sums)
    random = np.random.default_rng(0)  # for the width of intervals only
    drawn = [measures(sums + random.normal(0.0, deviation, sums.shape)) for _ in range(_DRAWS if deviation > 0 else 1)]
    metrics = []
    for name, value in values.items():
        error = float(np.nanstd([draw[name] for draw in drawn])) if deviation > 0 else 0.0
        lowest, highest = _RANGES.get(name, (-np.inf, np.inf))
        inside = min(max(value, lowest), highest)  # no further from the truth, which lies inside: intervals still cover
        metrics.append(Metric(name, inside, max(inside - Z95 * error, lowest), min(inside + Z95 * error, highest)))
    calibration = _calibration(sums.reshape(statistic.shape), deviation) if statistic.shape == (BINS, 2) else ()
    return Evaluation(tuple(metrics), sums.reshape(statistic.shape), deviation, calibration)


def headline(plan: JobPlan, sums: Floats) -> tuple[str, float]:
    """Return the measure that tells best how training goes on, by its name, as the noise left it; NaN where it drowned.

    The loss of two categories, else RMSE, C-index or accuracy. `plan` and `sums` are of an evaluation.
    """
    statistic = plan.statistic
    if not isinstance(statistic, Scores):
        raise TypeError("this is no evaluation")
    found = _measures(statistic)(sums)
    name = next(name for name in HEADLINES if name in found)
    return name, found[name]


class Patience:
    """The stopping rule of a job: `patience` evaluations in a row that are no better than the best before them.

    A function of the releases, so that coordinator and analyst agree. One that the noise drowned counts as no better.
    """

    def __init__(self, plan: JobPlan) -> None:
        """`plan` is the job's."""
        self._plan = plan
        self._best = np.inf
        self._worse = 0

    def take(self, sums: Floats) -> bool:
        """Take the next evaluation; return whether the job ends with it."""
        if self._plan.evaluation is None or not self._plan.job.patience:
            return False
        name, value = headline(self._plan.evaluation, sums)
        error = -value if name in _SHARES else value
        better = error < self._best
        self._best = error if better else self._best
        self._worse = 0 if better else self._worse + 1
        return self._worse >= self._plan.job.patience


def _measures(statistic: Scores) -> Measures:
    if statistic.shape == (ERROR_NUMBERS,):
        return lambda sums: _of_numbers(sums, statistic.centre[1])
    if len(statistic.shape) == 3:
        return lambda sums: _of_times(sums.reshape(statistic.shape))
    if statistic.classes == 2:
        return lambda sums: _of_two(sums.reshape(statistic.shape))
    return lambda sums: _of_many(sums.reshape(statistic.shape))


def _ratio(part: float | Floats, whole: float | Floats) -> float:
    return float(part) / float(whole) if float(whole) > 0 else float("nan")


def _of_two(table: Floats) -> dict[str, float]:
    negative, positive = table[:, 0], table[:, 1]
    half = BINS // 2
    total = float(table.sum())
    below = np.cumsum(negative) - negative
    middle = (np.arange(BINS) + 0.5) / BINS
    loss = -(positive @ np.log(middle) + negative @ np.log1p(-middle))
    brier = positive @ (1 - middle) ** 2 + negative @ middle**2
    return {
        "persons": total,
        "accuracy": _ratio(negative[:half].sum() + positive[half:].sum(), total),
        "auc": _ratio(positive @ (below + negative / 2), float(positive.sum() * negative.sum())),
        "sensitivity": _ratio(positive[half:].sum(), positive.sum()),
        "specificity": _ratio(negative[:half].sum(), negative.sum()),
        "loss": _ratio(loss, total),
        "brier": _ratio(brier, total),
    }


def _of_many(table: Floats) -> dict[str, float]:
    total, right = float(table.sum()), np.diag(table)
    return {
        "persons": total,
        "accuracy": _ratio(right.sum(), total),
        "balanced_accuracy": float(np.mean([_ratio(r, t) for r, t in zip(right, table.sum(axis=0), strict=True)])),
    }


def _of_numbers(sums: Floats, half: float) -> dict[str, float]:
    count, error, squared, label, label_squared = sums * np.sqrt(ERROR_NUMBERS)
    mean_squared = _ratio(squared, count) * (2 * half) ** 2
    variance = (_ratio(label_squared, count) - _ratio(label, count) ** 2) * half**2
    return {
        "persons": float(count),
        "rmse": float(np.sqrt(max(mean_squared, 0.0))),
        "bias": _ratio(error, count) * 2 * half,
        "r2": float(1 - mean_squared / variance) if variance > 0 else float("nan"),
    }


def _of_times(table: Floats) -> dict[str, float]:
    """Harrell's C over cells: of an event and anyone of a later time, who had the higher risk; ties count half."""
    risks = table.shape[0]
    everyone = table.sum(axis=2)
    later = np.cumsum(everyone[:, ::-1], axis=1)[:, ::-1] - everyone
    events = table[:, :, 1]
    lower = np.cumsum(later, axis=0) - later
    concordant = float((events * (lower + later / 2)).sum())
    pairs = float((events * later.sum(axis=0)[None, :].repeat(risks, axis=0)).sum())
    return {"persons": float(table.sum()), "events": float(events.sum()), "c_index": _ratio(concordant, pairs)}


def _calibration(table: Floats, deviation: float) -> tuple[tuple[float, float, float, float], ...]:
    out = []
    for number, (negative, positive) in enumerate(table):
        count = float(negative + positive)
        if count <= max(6 * deviation, 0.5):
            continue  # the noise drowns this bin
        share = float(positive) / count
        error = Z95 * deviation * float(np.hypot(share, 1 - share)) / count
        out.append(((number + 0.5) / BINS, share, share - error, share + error))
    return tuple(out)

"""Pictures of a result, its 95% intervals always drawn. Matplotlib is imported here alone, and only when asked for.

The kind of picture follows from the question: bars for groups and bins, a step curve for survival, a heat map for
matrices of pairs, a forest for the terms of a model. Must not know: the network, where a picture goes.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from queries.errors import ConfigError, QueryError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analytics_client.result import Result
    from queries.estimate import Output

Kind = Literal["bar", "survival", "heatmap", "forest"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_MOST_BARS = 60
_NOTE_WIDTH = 95
_SUMMARIES = frozenset({"rows", "residual_df", "deviance", "r_squared"})
"""Numbers beside a model's coefficients that have another unit."""
_PAIRS = "pair"
_TERMS = frozenset({"term", "number", "component"})
_COLOURS = ("#33658a", "#f26419", "#86bbd8", "#758e4f", "#9a348e", "#2f4858")


def plot(result: Result, output: str | None = None, *, kind: Kind | None = None, ax: Axes | None = None) -> Axes:
    """Draw one output and return the axes; `output` is its name, by default the first.

    Raise ConfigError where matplotlib is not installed, QueryError where the result has no such output or kind.
    """
    names = result.columns
    if output is not None and output not in names:
        raise QueryError(f"the result has no output {output!r}", hint=f"it has {', '.join(names)}")
    if kind is not None and kind not in KINDS:
        raise QueryError(f"there is no picture of kind {kind!r}", hint=f"one of {', '.join(KINDS)}")
    chosen = result.table.outputs[names.index(output) if output else 0]
    ax = axes_for(ax)
    drawn = {"bar": _bar, "survival": _survival, "heatmap": _heatmap, "forest": _forest}
    drawn[kind or _kind(result, chosen)](ax, result, chosen)
    note = textwrap.fill(f"{result.participants}; {result.cost}; with 95% intervals", _NOTE_WIDTH)
    ax.set_title(result.question, fontsize=10, loc="left", pad=10 + 10 * (note.count("\n") + 1))
    ax.annotate(note, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=7, color="#555555", va="bottom")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def axes_for(ax: Axes | None) -> Axes:
    """Return these axes, or new ones. Raise ConfigError where matplotlib is not installed."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ConfigError("pictures need matplotlib", hint='install it: pip install "cohortium[plot]"') from None
    if ax is None:
        _, ax = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    return ax


def _kind(result: Result, output: Output) -> Kind:
    last = result.table.keys[-1] if result.table.keys else ""
    if f"{_operation(result, output)}(".startswith("survival("):
        return "survival"
    if last == _PAIRS:
        return "heatmap"
    return "forest" if last in _TERMS or (not result.table.keys and output.value.size == 1) else "bar"


def _operation(result: Result, output: Output) -> str:
    """The operation of an output, from the question's words: "count(*), mean(age) by sex"."""
    depth, start, parts = 0, 0, []
    for place, letter in enumerate(result.question):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append(result.question[start:place])
            start = place + 1
    parts.append(result.question[start:])
    at = result.columns.index(output.name)
    return parts[at].strip().partition("(")[0] if at < len(parts) else ""


def _rows(result: Result, output: Output) -> tuple[list[str], Any, Any, Any]:
    """Return labels, values, lows and highs, one a row and bin."""
    if output.value.ndim == 1:
        labels = [", ".join(keys) for keys in result.table.row_keys]
    else:
        labels = [", ".join((*keys, each.label)) for keys in result.table.row_keys for each in output.bins]
    return labels, output.value.reshape(-1), output.low.reshape(-1), output.high.reshape(-1)


def _bar(ax: Axes, result: Result, output: Output) -> None:
    labels, value, low, high = _rows(result, output)
    if len(labels) > _MOST_BARS:
        raise QueryError(
            f"a picture of {len(labels):,} bars cannot be read", hint="ask for fewer groups, or use to_pandas()"
        )
    groups: list[tuple[str, ...]] = list(dict.fromkeys(keys[:-1] for keys in result.table.row_keys))
    long = len(groups) > 1 and output.value.ndim == 1 and len(result.table.keys) > 1
    if not long:
        place = np.arange(len(labels), dtype=np.float64)
        ax.bar(place, value, color=_COLOURS[0], width=0.75)
        ax.errorbar(place, value, yerr=_errors(value, low, high), fmt="none", ecolor="#222222", capsize=3, lw=1)
        _ticks(ax, labels)
    else:
        lasts = list(dict.fromkeys(keys[-1] for keys in result.table.row_keys))
        width = 0.8 / len(groups)
        for number, group in enumerate(groups):
            at = [row for row, keys in enumerate(result.table.row_keys) if keys[:-1] == group]
            centre = np.array([lasts.index(result.table.row_keys[row][-1]) for row in at], dtype=np.float64)
            place = centre + (number + 0.5) * width - 0.4
            ax.bar(place, value[at], width, color=_COLOURS[number % len(_COLOURS)], label=", ".join(group))
            ax.errorbar(
                place, value[at], yerr=_errors(value[at], low[at], high[at]), fmt="none", ecolor="#222222", lw=1
            )
        _ticks(ax, lasts)
        title = ", ".join(result.table.keys[:-1])
        ax.legend(fontsize=8, title=title, title_fontsize=8, frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")
    ax.axhline(0, color="#222222", lw=0.8)
    ax.set_ylabel(output.name)
    ax.set_xlabel(result.table.keys[-1] if result.table.keys else "")


def _survival(ax: Axes, result: Result, output: Output) -> None:
    bins = output.bins
    rows = len(result.table.row_keys)
    per = len(bins)
    curves = output.value.reshape(-1, per) if output.value.ndim == 1 else output.value
    lows, highs = output.low.reshape(-1, per), output.high.reshape(-1, per)
    time = np.array([bins[0].lower or 0.0, *(float(each.upper or 0.0) for each in bins)])
    groups = [result.table.row_keys[place] for place in range(0, rows, rows // len(curves))]
    for number, (curve, low, high) in enumerate(zip(curves, lows, highs, strict=True)):
        colour = _COLOURS[number % len(_COLOURS)]
        name = ", ".join(groups[number][:-1] if output.value.ndim == 1 else groups[number])
        steps = [np.concatenate([[1.0], part]) for part in (curve, low, high)]
        ax.step(time, steps[0], where="post", color=colour, label=name)
        ax.fill_between(time, steps[1], steps[2], step="post", color=colour, alpha=0.2, lw=0)
    if len(curves) > 1:
        ax.legend(frameon=False, fontsize=8)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("share without the event")
    ax.set_xlabel(result.table.keys[-1] if result.table.keys else "time")


def _heatmap(ax: Axes, result: Result, output: Output) -> None:
    labels, value, low, high = _rows(result, output)
    pairs = [tuple(label.split(", ")[-1].split(" ", 1)) for label in labels]
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    if len(pairs) != len(set(pairs)) or any(len(pair) != 2 for pair in pairs):
        raise QueryError("a heat map shows one matrix of pairs", hint="ask without GROUP BY, or draw bars")
    grid = np.full((len(names), len(names)), np.nan)
    for (x, y), number in zip(pairs, value, strict=True):
        i, j = names.index(x), names.index(y)
        grid[i, j] = grid[j, i] = number
    correlation = np.nanmax(np.abs(grid)) <= 1
    if correlation:
        np.fill_diagonal(grid, 1.0)
    most = 1.0 if correlation else float(np.nanmax(np.abs(grid)))
    shown = ax.imshow(grid, cmap="RdBu_r", vmin=-most, vmax=most)
    ax.figure.colorbar(shown, ax=ax, shrink=0.85)
    for (x, y), number, below, above in zip(pairs, value, low, high, strict=True):
        text = f"{number:.2f}\n[{below:.2f}, {above:.2f}]"
        ax.text(names.index(y), names.index(x), text, ha="center", va="center", fontsize=7)
    ax.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)


def _forest(ax: Axes, result: Result, output: Output) -> None:
    labels, value, low, high = _rows(result, output)
    shown = [at for at, label in enumerate(labels) if label.split(", ")[-1] not in _SUMMARIES]
    labels, value, low, high = [labels[at] for at in shown], value[shown], low[shown], high[shown]
    place = np.arange(len(labels))[::-1]
    ax.errorbar(value, place, xerr=_errors(value, low, high), fmt="o", color=_COLOURS[0], capsize=3, ms=5)
    ax.axvline(0, color="#888888", lw=0.8, ls=":")
    ax.set_yticks(place, [label or output.name for label in labels], fontsize=8)
    ax.set_ylim(-0.7, len(labels) - 0.3)
    ax.set_xlabel(output.name)


def _errors(value: Any, low: Any, high: Any) -> Any:
    return np.stack([np.maximum(value - low, 0), np.maximum(high - value, 0)])


def _ticks(ax: Axes, labels: list[str]) -> None:
    crowded = sum(map(len, labels)) > 60
    ax.set_xticks(
        range(len(labels)), labels, fontsize=8, rotation=40 if crowded else 0, ha="right" if crowded else "center"
    )

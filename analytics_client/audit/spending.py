"""What was spent of whose privacy budget over time: sums per analyst and dataset, a line of text, a drawing (SVG).

The log knows what institutions charged, in rho of zero-concentrated differential privacy; what they had granted is in
their own policies. Pure. Must not know: tables, pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from analytics_client.audit.asked import Asked
from queries.accounting import NANO
from trust.tlog.entries import moment

_BARS = " ▁▂▃▄▅▆▇█"
_COLOURS = ("#1f4e79", "#b3541e", "#2e7d32", "#6a3d9a", "#8c6d1f", "#00838f")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 220, 60, 28, 12


@dataclass(frozen=True)
class Spending:
    """One analyst's use of one dataset. `steps` are (unix milliseconds, rho in 1e-9 spent up to then), ascending."""

    analyst: str
    dataset: str
    requests: int
    released: int
    denied: int
    steps: tuple[tuple[int, int], ...]

    @property
    def rho(self) -> float:
        """What was spent in all."""
        return self.steps[-1][1] / NANO if self.steps else 0.0


def spending(asked: Iterable[Asked]) -> list[Spending]:
    """Return the spending of every analyst on every dataset asked for, by name of dataset and analyst."""
    groups: dict[tuple[str, str], list[Asked]] = {}
    for request in asked:
        groups.setdefault((request.dataset, request.analyst), []).append(request)
    return [_of(analyst, dataset, groups[dataset, analyst]) for dataset, analyst in sorted(groups)]


def _of(analyst: str, dataset: str, asked: Sequence[Asked]) -> Spending:
    steps: list[tuple[int, int]] = []
    total = 0
    for request in sorted(asked, key=lambda r: r.ended_ms or r.at_ms):
        if request.spent_nano:
            total += request.spent_nano
            steps.append((request.ended_ms or request.at_ms, total))
    outcomes = [request.outcome for request in asked]
    return Spending(analyst, dataset, len(asked), outcomes.count("released"), outcomes.count("denied"), tuple(steps))


def span(spent: Iterable[Spending]) -> tuple[int, int]:
    """Return the first and the last moment at which anything was spent, (0, 0) where nothing was."""
    times = [at for one in spent for at, _ in one.steps]
    return (min(times), max(times)) if times else (0, 0)


def bars(one: Spending, within: tuple[int, int], width: int = 24) -> str:
    """Return the growth of one spending as `width` characters, each as high as what was spent by then."""
    first, last = within
    if not one.steps:
        return " " * width
    text, total, step = "", 0, 0
    for column in range(1, width + 1):
        until = first + (last - first) * column // width
        while step < len(one.steps) and one.steps[step][0] <= until:
            total = one.steps[step][1]
            step += 1
        text += _BARS[0] if not total else _BARS[max(1, round(total / one.steps[-1][1] * (len(_BARS) - 1)))]
    return text


def drawing(spent: Sequence[Spending]) -> str:
    """Return an SVG of rho over time, one stair for each spending; it needs nothing outside itself."""
    first, last = span(spent)
    most = max((one.rho for one in spent), default=0.0) or 1.0
    width, height = _WIDTH - _LEFT - 8, _HEIGHT - _TOP - _BOTTOM

    def x(at: int) -> float:
        return _LEFT + (width * (at - first) / (last - first) if last > first else width)

    def y(rho: float) -> float:
        return _TOP + height * (1 - rho / most)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT + 16 * len(spent)}" role="img" '
        'font-family="sans-serif" font-size="11">',
        f'<path d="M{_LEFT} {_TOP}V{_TOP + height}H{_LEFT + width}" fill="none" stroke="#555"/>',
    ]
    parts += [
        f'<text x="{_LEFT - 6}" y="{y(most * part) + 4:.1f}" text-anchor="end">{most * part:.3g}</text>'
        for part in (0, 0.5, 1)
    ]
    if last:
        below = _TOP + height + 16
        parts.append(f'<text x="{_LEFT}" y="{below}">{moment(first)[:10]}</text>')
        parts.append(f'<text x="{_LEFT + width}" y="{below}" text-anchor="end">{moment(last)[:10]}</text>')
    for number, one in enumerate(spent):
        colour = _COLOURS[number % len(_COLOURS)]
        path = f"M{_LEFT} {y(0):.1f}" + "".join(f"H{x(at):.1f}V{y(rho / NANO):.1f}" for at, rho in one.steps)
        parts.append(f'<path d="{path}H{_LEFT + width}" fill="none" stroke="{colour}" stroke-width="2"/>')
        line = _HEIGHT + 16 * number + 8
        name = escape(f"{one.analyst} on {one.dataset}: rho {one.rho:g}")
        parts.append(f'<path d="M{_LEFT} {line - 4}h20" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{_LEFT + 26}" y="{line}">{name}</text>')
    return "".join([*parts, "</svg>"])

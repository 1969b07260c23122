"""One HTML page about a period of the log, for a data protection officer to read, print and sign.

It stands alone (no script, no font, nothing fetched) and says itself what was verified, with which keys. Everything in
it that came from a leaf is escaped. Pure: the caller reads and writes files and knows the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from analytics_client.audit.anomalies import Anomaly
from analytics_client.audit.asked import Asked
from analytics_client.audit.history import Entry
from analytics_client.audit.report import Report
from analytics_client.audit.spending import drawing, spending
from protos.v1 import log_pb2
from queries.accounting import NANO
from queries.errors import LogError
from trust.tlog.entries import decode, moment, sentence

_WHO = ("invited", "enrolled", "revoked", "membership_published", "dataset_published")
MOST_ROWS = 2_000
"""Requests that are listed one by one; a page with more says how many it leaves to `cohortium audit log`."""


@dataclass(frozen=True)
class Period:
    """From `since_ms` up to, not including, `before_ms`; unix milliseconds."""

    since_ms: int
    before_ms: int

    def holds(self, at_ms: int) -> bool:
        """Whether a moment is in it."""
        return self.since_ms <= at_ms < self.before_ms


def page(
    entries: Sequence[Entry],
    asked: Sequence[Asked],
    report: Report,
    found: Sequence[Anomaly],
    period: Period,
    *,
    consortium: str,
    made_ms: int,
) -> str:
    """Return the page. `report` and `found` are of the whole log; what the page tells is of the period."""
    within = [request for request in asked if period.holds(request.at_ms)]
    spent = spending(within)
    text: str = _template().render(
        consortium=consortium,
        since=_day(period.since_ms),
        until=_minute(min(period.before_ms, made_ms)),
        made=_minute(made_ms),
        report=report,
        root=report.root.hex(),
        log_since=_minute(report.since_ms),
        log_until=_minute(report.until_ms),
        activities=_activities(within),
        outcomes=Counter(request.outcome for request in within),
        requests=[_row(request) for request in within[:MOST_ROWS]],
        left_out=max(0, len(within) - MOST_ROWS),
        total=len(within),
        spent=spent,
        drawing=drawing(spent),
        anomalies=[(_minute(a.at_ms), a) for a in found if period.holds(a.at_ms)],
        **_others(entries, period),
    )
    return text


def _activities(asked: Iterable[Asked]) -> list[dict[str, Any]]:
    """Group by dataset and purpose, as a record of processing activities (GDPR art. 30) is kept."""
    groups: dict[tuple[str, str], list[Asked]] = {}
    for request in asked:
        groups.setdefault((request.dataset, request.purpose), []).append(request)
    return [
        {
            "dataset": dataset,
            "purpose": purpose,
            "analysts": sorted({r.analyst for r in group}),
            "institutions": sorted({name for r in group for name in r.survivors}),
            "requests": len(group),
            "outcomes": Counter(r.outcome for r in group),
            "rho": sum(r.spent_nano for r in group) / NANO,
        }
        for (dataset, purpose), group in sorted(groups.items())
    ]


def _row(request: Asked) -> dict[str, Any]:
    return {
        "seq": request.seq,
        "at": _minute(request.at_ms),
        "analyst": request.analyst,
        "dataset": request.dataset,
        "shape": request.shape,
        "purpose": request.purpose,
        "outcome": request.outcome,
        "rho": request.spent_nano / NANO,
        "denials": [(d.institution or "the coordinator", d.rule) for d in request.denials()],
        "survivors": request.survivors,
    }


def _others(entries: Iterable[Entry], period: Period) -> Mapping[str, Any]:
    """Return what changed about who belongs, and who read the log, each as lines; and how many entries there were."""
    changes, reads, count = [], Counter[str](), 0
    for seq, leaf in entries:
        try:
            entry: log_pb2.LogEntry = decode(leaf)
        except LogError:
            continue
        if not period.holds(entry.at_ms):
            continue
        count += 1
        kind = entry.WhichOneof("event")
        if kind in _WHO:
            changes.append(sentence(seq, entry))
        elif kind == "log_read":
            reads[entry.actor] += 1
    return {"changes": changes, "reads": sorted(reads.items()), "count": count}


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("analytics_client.audit", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")


def _minute(at_ms: int) -> str:
    return moment(at_ms)[:16].replace("T", " ") + " UTC" if at_ms else "never"


def _day(at_ms: int) -> str:
    return _minute(at_ms) if at_ms else "the beginning"

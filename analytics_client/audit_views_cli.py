"""`cohortium audit who-asked|budget|anomalies|report`: what a whole log tells, live or from an export.

Registered on the application of `audit_cli`. Must not know: how any of it is computed.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analytics_client.audit_cli import (
    Database,
    Export,
    GovernanceKey,
    Json,
    ProfileOption,
    Text,
    app,
    milliseconds,
    verified,
)
from trust.command import print_json

__all__ = ["app"]

if TYPE_CHECKING:
    from analytics_client.audit import Asked

Since = Annotated[datetime | None, typer.Option("--since", "--from", help="Not before this time (UTC).")]
Before = Annotated[datetime | None, typer.Option("--before", "--to", help="Before this time (UTC).")]


@dataclass(frozen=True)
class _Wanted:
    """Which requests are meant; "" for any."""

    dataset: str = ""
    analyst: str = ""
    institution: str = ""
    outcome: str = ""
    since_ms: int = 0
    before_ms: int = 0

    def of(self, asked: list[Asked]) -> list[Asked]:
        return [
            request
            for request in asked
            if self.dataset in ("", request.dataset)
            and self.analyst in ("", request.analyst)
            and self.outcome in ("", request.outcome)
            and (not self.institution or any(d.institution == self.institution for d in request.decisions))
            and self.since_ms <= request.at_ms
            and (not self.before_ms or request.at_ms < self.before_ms)
        ]


@app.command("who-asked")
def who_asked(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Whose data: the published name.")],
    *,
    analyst: Text = "",
    institution: Text = "",
    outcome: Annotated[str, typer.Option(metavar="OUTCOME", help="released, denied, failed or running.")] = "",
    since: Since = None,
    before: Before = None,
    database: Database = None,
    export: Export = None,
    governance_key: GovernanceKey = "",
    profile: ProfileOption = None,
    json: Json = False,
) -> None:
    """List who asked what of a dataset, why, who answered, and what it cost."""
    from analytics_client.audit import requests

    history, report = verified(database, export, governance_key, profile)
    wanted = _Wanted(dataset, analyst, institution, outcome, milliseconds(since), milliseconds(before))
    asked = wanted.of(requests(history.entries))
    if json:
        print_json([_request_record(request) | {"service": request.analyst in report.services} for request in asked])
    else:
        from analytics_client import render

        people = [r for r in asked if r.analyst not in report.services]
        programs = [r for r in asked if r.analyst in report.services]
        rows = [
            (
                str(r.seq),
                _when(r.at_ms),
                r.analyst,
                r.shape,
                r.purpose,
                r.outcome,
                ", ".join(r.survivors) if r.outcome == "released" else _said_no(r),
                f"{r.spent_nano / 1e9:g}",
            )
            for r in (*people, *programs)
        ]
        columns = [">entry", "when (UTC)", "who", "asked", "purpose", "end", "by", ">rho"]
        title = f"Who asked of {dataset}: {len(people)} requests"
        render.stdout().print(render.grid(columns, rows[: len(people)], title=title))
        if programs:
            title = f"Service accounts, with no person behind them: {len(programs)} requests"
            render.stdout().print(render.grid(columns, rows[len(people) :], title=title))
    report.require()


@app.command()
def budget(
    *,
    dataset: Text = "",
    analyst: Text = "",
    since: Since = None,
    before: Before = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw spending over time into this file.")
    ] = None,
    database: Database = None,
    export: Export = None,
    governance_key: GovernanceKey = "",
    profile: ProfileOption = None,
    json: Json = False,
) -> None:
    """Show what each analyst spent of each dataset over time, as the institutions charged it."""
    from analytics_client.audit import requests, spending
    from analytics_client.audit.spending import bars, drawing, span
    from trust.identity import files

    history, report = verified(database, export, governance_key, profile)
    wanted = _Wanted(dataset, analyst, since_ms=milliseconds(since), before_ms=milliseconds(before))
    spent = spending(wanted.of(requests(history.entries)))
    if plot is not None:
        files.replace(plot, drawing(spent).encode(), secret=False)
    if json:
        print_json([asdict(one) | {"rho": one.rho} for one in spent])
    else:
        from analytics_client import render

        within = span(spent)
        rows = [
            (
                one.dataset,
                one.analyst,
                str(one.requests),
                str(one.released),
                str(one.denied),
                f"{one.rho:g}",
                bars(one, within),
            )
            for one in spent
        ]
        notes = [f"over time: {_when(within[0])} to {_when(within[1])}"] if within[1] else []
        columns = ["dataset", "who", ">requests", ">released", ">denied", ">rho", "over time"]
        render.stdout().print(render.grid(columns, rows, title="Privacy budget used", notes=notes))
    report.require()


@app.command()
def anomalies(
    *,
    kind: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="Only one kind, such as differencing or burst.",
            show_default=False,
        ),
    ] = "",
    burst: Annotated[int, typer.Option(metavar="N", min=2, help="Requests within an hour that are a burst.")] = 30,
    repeated: Annotated[int, typer.Option(metavar="N", min=2, help="Answers to one question that are many.")] = 5,
    days: Annotated[
        float, typer.Option(metavar="DAYS", min=0, help="How far apart a differencing pair may be.")
    ] = 30.0,
    silent: Annotated[float, typer.Option(metavar="HOURS", min=0, help="Hours without a cosignature.")] = 24.0,
    used: Annotated[
        float, typer.Option(metavar="PART", min=0, max=1, help="Part of a budget that is nearly all.")
    ] = 0.9,
    database: Database = None,
    export: Export = None,
    governance_key: GovernanceKey = "",
    profile: ProfileOption = None,
    json: Json = False,
) -> None:
    """Find what is worth a look: differencing, bursts, denied and reworded, budgets at their end, silent witnesses."""
    from analytics_client.audit import Thresholds, requests
    from analytics_client.audit import anomalies as find
    from analytics_client.audit.anomalies import KINDS
    from queries.errors import ConfigError

    if kind and kind not in KINDS:
        raise ConfigError(f"there is no anomaly {kind!r}", hint=f"one of: {', '.join(KINDS)}")
    history, report = verified(database, export, governance_key, profile)
    limits = Thresholds(differencing_days=days, repeated=repeated, burst=burst, silent_hours=silent, budget_used=used)
    found = [a for a in find(requests(history.entries), report, limits) if kind in ("", a.kind)]
    if json:
        print_json([asdict(anomaly) for anomaly in found])
    elif not found:
        typer.echo(f"Nothing that stands out in {report.size} entries.")
    else:
        from analytics_client import render

        rows = [(_when(a.at_ms), a.kind, a.analyst, a.dataset, a.text, _numbers(a.seqs)) for a in found]
        columns = ["when (UTC)", "what", "who", "dataset", "why", "entries"]
        render.stdout().print(render.grid(columns, rows, notes=["Questions for a person, not verdicts."]))
    report.require()


@app.command()
def reconcile(
    journal: Annotated[Path, typer.Argument(metavar="JOURNAL", help="A copy of an agent's journal.sqlite.")],
    *,
    database: Database = None,
    export: Export = None,
    governance_key: GovernanceKey = "",
    profile: ProfileOption = None,
    json: Json = False,
) -> None:
    """Hold the log against an institution's own; name every decision that only one of them has. Exit 6 if any."""
    from analytics_client.audit import read_journal, requests
    from analytics_client.audit import reconcile as compare

    own = read_journal(journal)
    history, checked = verified(database, export, governance_key, profile)
    checked.require()
    institution = own[0].decision.institution if own else ""
    found = compare(own, requests(history.entries), checked.identity_keys.get(institution, ()))
    if json:
        print_json(
            {
                "institution": found.institution,
                "agree": found.ok,
                "decisions": found.decisions,
                "logged": found.logged,
                "problems": list(found.problems),
                "missing": [{"number": o.number, "request_id": o.decision.request_id} for o in found.missing],
                "foreign": [d.seq for d in found.foreign],
            }
        )
    else:
        typer.echo("\n".join(found.lines()))
    found.require()


@app.command()
def report(
    file: Annotated[Path, typer.Argument(metavar="FILE.html", help="The page to write.")],
    *,
    since: Since = None,
    before: Before = None,
    database: Database = None,
    export: Export = None,
    governance_key: GovernanceKey = "",
    profile: ProfileOption = None,
    json: Json = False,
) -> None:
    """Write one page about a period that a data protection officer can read, print and sign."""
    from analytics_client.audit import anomalies as find
    from analytics_client.audit import requests
    from analytics_client.audit.page import Period, page
    from queries.errors import ConfigError
    from trust.identity import files

    now = time.time_ns() // 1_000_000
    period = Period(milliseconds(since), milliseconds(before) or now + 1)
    if period.since_ms >= period.before_ms:
        raise ConfigError("the period ends before it begins", hint="--from a day, --to a later one")
    history, checked = verified(database, export, governance_key, profile)
    entries = list(history.entries)
    asked = requests(entries)
    text = page(
        entries,
        asked,
        checked,
        find(asked, checked),
        period,
        consortium=checked.consortium or "an unknown consortium",
        made_ms=now,
    )
    files.replace(file, text.encode(), secret=False)
    if json:
        print_json({"file": str(file), "verified": checked.ok, "requests": sum(period.holds(r.at_ms) for r in asked)})
    else:
        typer.echo(f"The report is in {file}. Print it from a browser; it fetches nothing.")
    checked.require()


def _request_record(request: Asked) -> dict[str, object]:
    return {
        "request_id": request.request_id,
        "seq": request.seq,
        "at": _when(request.at_ms),
        "analyst": request.analyst,
        "purpose": request.purpose,
        "dataset": request.dataset,
        "shape": request.shape,
        "outcome": request.outcome,
        "rho": request.rho_nano / 1e9,
        "spent_rho": request.spent_nano / 1e9,
        "survivors": list(request.survivors),
        "decisions": [
            {"institution": d.institution, "allowed": d.allowed, "rule": d.rule, "seq": d.seq}
            for d in request.decisions
        ],
    }


def _said_no(request: Asked) -> str:
    return ", ".join(f"{d.institution or 'coordinator'}: {d.rule}" for d in request.denials()) or request.failure


def _numbers(seqs: tuple[int, ...]) -> str:
    return ", ".join(map(str, seqs[:6])) + (" …" if len(seqs) > 6 else "")


def _when(at_ms: int) -> str:
    from trust.tlog.entries import moment

    return moment(at_ms)[:16].replace("T", " ")

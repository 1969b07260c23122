"""`cohortium audit`: read the log of who asked what, and check that nobody rewrote it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trust.command import print_json

if TYPE_CHECKING:
    from analytics_client.audit import Entry, Report
    from analytics_client.profile import Profile

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Read the log of who asked what of whose data, and check that nobody rewrote it.",
)

ProfileOption = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        envvar="COHORTIUM_PROFILE",
        metavar="DIR",
        help="Folder of an auditor, steward or operator.",
        show_default="~/.cohortium",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Text = Annotated[str, typer.Option(metavar="NAME", show_default=False)]
FOLLOW_HINT = "Keep printing what is appended, until Ctrl-C."


@app.command()
def log(
    *,
    first: Annotated[int, typer.Option(metavar="SEQ", min=0, help="Begin at this entry.")] = 0,
    limit: Annotated[int, typer.Option(metavar="N", min=0, help="At most this many; 0 for all.")] = 0,
    kind: Annotated[str, typer.Option(metavar="KIND", help="One kind of event, such as requested or decided.")] = "",
    dataset: Text = "",
    actor: Text = "",
    institution: Text = "",
    outcome: Annotated[str, typer.Option(metavar="OUTCOME", help="allowed, denied, released or failed.")] = "",
    request: Annotated[str, typer.Option(metavar="HEX", help="A request's id, or the beginning of it.")] = "",
    since: Annotated[datetime | None, typer.Option(help="Not before this time (UTC).")] = None,
    before: Annotated[datetime | None, typer.Option(help="Before this time (UTC).")] = None,
    follow: Annotated[bool, typer.Option("--follow", help=FOLLOW_HINT)] = False,
    profile: ProfileOption = None,
    json: Json = False,
) -> None:
    """List entries. Reading the log is itself an entry."""
    from analytics_client.audit_session import open_log

    filters = {
        "kind": kind, "dataset": dataset, "actor": actor, "institution": institution, "outcome": outcome,
        "request_id": request,
    }  # fmt: skip
    with open_log(profile or _default()) as session:
        found = session.reader.entries(
            first=first,
            limit=limit,
            follow=follow,
            since_ms=_milliseconds(since),
            before_ms=_milliseconds(before),
            **{name: value for name, value in filters.items() if value},
        )
        if json and not follow:
            print_json([record(entry) for entry in found])
        else:
            _print_lines(found, as_json=json)


@app.command()
def show(
    seq: Annotated[int, typer.Argument(metavar="SEQ", min=0, help="The entry's number.")],
    profile: ProfileOption = None,
    json: Json = False,
) -> None:
    """Show one entry in full, with proof that it is in the log."""
    from analytics_client import render
    from analytics_client.audit_session import open_log

    with open_log(profile or _default()) as session:
        proof = session.entry(seq)
    shown = record(proof.entry)
    if json:
        print_json(shown | {"proved_under": {"size": proof.head.size, "root": proof.head.root}})
        return
    rows = [(name, _plain(value)) for name, value in (shown | shown.pop("event")).items() if value not in ("", None)]
    render.stdout().print(
        render.grid(["", ""], rows, notes=[f"proved to be in the log, under its head of {proof.head.size} entries"])
    )


@app.command()
def verify(
    *,
    database: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A copy of the coordinator's SQLite file, or an SQLite export.")
    ] = None,
    export: Annotated[Path | None, typer.Option(metavar="FILE", help="A JSON-lines export.")] = None,
    governance_key: Annotated[
        str, typer.Option(metavar="HEX", help="The pinned governance key, where you have no profile.")
    ] = "",
    profile: ProfileOption = None,
    json: Json = False,
) -> None:
    """Recompute the whole log and check every signature; name the entry that is wrong. Exit status 6 if one is.

    Asks the coordinator for its log; with --database or --export nobody is asked.
    """
    from queries.errors import ConfigError

    if database is not None and export is not None:
        raise ConfigError("verify one thing at a time", hint="give --database or --export")
    report = _verified(database, export, governance_key, profile)
    if json:
        print_json(report_record(report))
    else:
        typer.echo(report.text())
    report.require()


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".jsonl for programs; .sqlite for people, Datasette.")],
    profile: ProfileOption = None,
    json: Json = False,
) -> None:
    """Write the whole log to a file that can be searched and verified years later, without the coordinator."""
    from analytics_client.audit import write_json_lines, write_sqlite
    from analytics_client.audit_session import open_log

    with open_log(profile or _default()) as session:
        history = session.reader.history()
    sqlite = file.suffix.lower() in {".sqlite", ".sqlite3", ".db"}
    count = write_sqlite(history, file) if sqlite else write_json_lines(history, file)
    if json:
        print_json({"file": str(file), "format": "sqlite" if sqlite else "json-lines", "entries": count})
    else:
        flag = "--database" if sqlite else "--export"
        typer.echo(f"{count} entries are in {file}. Check it with: cohortium audit verify {flag} {file}")


def record(entry: Entry) -> dict[str, Any]:
    """Return an entry as plain values: what it can be found by, and the event itself."""
    from analytics_client.audit.export import readable

    return {"seq": entry.seq, **readable(entry)}


def report_record(report: Report) -> dict[str, Any]:
    """Return a report as plain values."""
    return {
        "verified": report.ok,
        "size": report.size,
        "root": report.root,
        "heads": report.heads,
        "epochs": list(report.epochs),
        "witnesses": report.witnesses,
        "statements": report.statements,
        "findings": [{"text": f.text, "first": f.first, "last": f.last} for f in report.findings],
    }


def _print_lines(entries: Iterable[Entry], *, as_json: bool) -> None:
    from json import dumps

    for entry in entries:
        shown = record(entry)
        typer.echo(dumps(shown, ensure_ascii=False) if as_json else shown["sentence"])


def _verified(database: Path | None, export_file: Path | None, governance_key: str, profile: Path | None) -> Report:
    from analytics_client.audit import read_json_lines, verify_database
    from analytics_client.audit import verify as verify_history
    from analytics_client.audit_session import open_log

    if database is None and export_file is None:
        with open_log(profile or _default()) as session:
            return session.verify()[0]
    key = _key(governance_key) if governance_key else _profile(profile).governance_key
    if database is not None:
        return verify_database(database, key)
    assert export_file is not None  # noqa: S101 - one of the two is given
    history = read_json_lines(export_file)
    return verify_history(history.entries, None, history.memberships, key, checkpoints=history.checkpoints)


def _key(text: str) -> bytes:
    from queries.errors import ConfigError

    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigError("a governance key is 64 hex digits", hint="it is in governance.pub and in every profile")
    return key


def _profile(folder: Path | None) -> Profile:
    from analytics_client import profile as profiles

    return profiles.load(folder or _default())


def _default() -> Path:
    from analytics_client.profile import default_folder

    return default_folder()


def _milliseconds(at: datetime | None) -> int:
    return int(at.replace(tzinfo=UTC).timestamp() * 1000) if at is not None else 0


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

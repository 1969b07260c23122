"""`cohortium audit`: read the log of who asked what, and check that nobody rewrote it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trust.command import print_json

if TYPE_CHECKING:
    from analytics_client.audit import Entry, History, Report
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
Database = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Ask nobody: a copy of the coordinator's SQLite file, or an SQLite export."),
]
Export = Annotated[Path | None, typer.Option(metavar="FILE", help="Ask nobody: a JSON-lines export.")]
GovernanceKey = Annotated[
    str, typer.Option(metavar="HEX", help="The pinned governance key, where you have no profile.", show_default=False)
]
HEAD_HINT = "A signed head kept elsewhere, with which the log has to agree; may be given again."
FOLLOW_HINT = "Keep printing what is appended, until Ctrl-C."


@app.command()
def log(
    *,
    first: Annotated[int, typer.Option(metavar="SEQ", min=0, help="Begin at this entry.")] = 0,
    limit: Annotated[int, typer.Option(metavar="N", min=0, help="At most this many; 0 for all.")] = 0,
    kind: Annotated[str, typer.Option(metavar="KIND", help="One kind of event, such as requested or decided.")] = "",
    dataset: Text = "",
    actor: Annotated[
        str, typer.Option("--actor", "--person", metavar="ID", help="Who acted: a person or an institution.")
    ] = "",
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
            since_ms=milliseconds(since),
            before_ms=milliseconds(before),
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
    database: Database = None,
    export: Export = None,
    head: Annotated[list[Path] | None, typer.Option(metavar="FILE", help=HEAD_HINT)] = None,
    governance_key: GovernanceKey = "",
    profile: ProfileOption = None,
    json: Json = False,
) -> None:
    """Recompute the whole log and check every signature; name the entry that is wrong. Exit status 6 if one is.

    Asks the coordinator for its log; with --database or --export nobody is asked.
    """
    from trust.identity import files

    heads = [files.read(path) for path in head or []]
    _, report = verified(database, export, governance_key, profile, heads=heads)
    if json:
        print_json(report_record(report))
    else:
        typer.echo(report.text())
    report.require()


@app.command()
def evidence(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What an agent, analyst or witness kept.")],
    *,
    database: Database = None,
    export: Export = None,
    governance_key: GovernanceKey = "",
    profile: ProfileOption = None,
    json: Json = False,
) -> None:
    """Check evidence that the log was forked or rewound. Asks nobody. Exit status 6 unless it is proven.

    Heads of different sizes also take a copy of the entries that the larger one covers: --export or --database.
    """
    from analytics_client.audit import read_database, read_json_lines, roots_at
    from queries.errors import ConfigError, LogError
    from trust.identity import files
    from trust.tlog.entries import moment
    from trust.tlog.evidence import Evidence, examine

    found = Evidence.from_bytes(files.read(file))
    if database is not None and export is not None:
        raise ConfigError("look at one thing at a time", hint="give --database or --export")
    key = _key(governance_key) if governance_key else _profile(profile).governance_key
    roots = None
    sizes = [head.size for head in found.heads]
    if database is not None:
        roots = roots_at(read_database(database).entries, sizes)
    elif export is not None:
        roots = roots_at(read_json_lines(export).entries, sizes)
    verdict = examine(found, key, roots)
    if json:
        print_json(
            {
                "verdict": verdict.kind,
                "found": found.found,
                "found_by": found.found_by,
                "at": found.at,
                "lines": list(verdict.lines),
            }
        )
    else:
        typer.echo(f"{found.found_by} found on {moment(found.at * 1000)[:10]}: {found.found}")
        for line in verdict.lines:
            typer.echo(f"  {line}")
        typer.echo(_VERDICTS[verdict.kind])
    if verdict.kind != "proven":
        raise LogError(f"not proven: {verdict.lines[-1]}")


_VERDICTS = {
    "proven": "PROVEN: the log's key signed two histories.",
    "word": "SAID AND SIGNED by an institution: it was shown another history.",
    "open": "OPEN: the signatures hold, but heads of different sizes need the entries.",
    "none": "NO CONTRADICTION.",
}


@app.command()
def export(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help=".jsonl for programs; .sqlite for people, Datasette; .csv; .fhir.json for hospitals."
        ),
    ],
    profile: ProfileOption = None,
    json: Json = False,
) -> None:
    """Write the whole log to a file. JSON lines and SQLite can be verified years later, without the coordinator."""
    from analytics_client.audit_session import open_log

    kind = _format(file)
    with open_log(profile or _default()) as session:
        count = _write(kind, session.reader.history(), file, session.profile.consortium)
    if json:
        print_json({"file": str(file), "format": kind, "entries": count})
        return
    flag = {"sqlite": "--database", "json-lines": "--export"}.get(kind)
    next_step = f" Check it with: cohortium audit verify {flag} {file}" if flag else ""
    typer.echo(f"{count} entries are in {file}.{next_step}")


def _format(file: Path) -> str:
    """Return what a file's name asks for. Raise ConfigError where it asks for nothing."""
    from queries.errors import ConfigError

    name = file.name.lower()
    if name.endswith((".fhir.json", ".fhir")):
        return "fhir"
    formats = {
        ".sqlite": "sqlite", ".sqlite3": "sqlite", ".db": "sqlite", ".csv": "csv", ".jsonl": "json-lines",
        ".ndjson": "json-lines", ".json": "json-lines",
    }  # fmt: skip
    try:
        return formats[file.suffix.lower()]
    except KeyError:
        raise ConfigError(
            f"the name {file.name!r} does not say which format is meant",
            hint="end it in .jsonl, .sqlite, .csv or .fhir.json",
        ) from None


def _write(kind: str, history: History, file: Path, consortium: str) -> int:
    from analytics_client.audit import write_csv, write_fhir, write_json_lines, write_sqlite

    if kind == "fhir":
        return write_fhir(history, file, consortium)
    return {"sqlite": write_sqlite, "csv": write_csv, "json-lines": write_json_lines}[kind](history, file)


def record(entry: Entry) -> dict[str, Any]:
    """Return an entry as plain values: what it can be found by, and the event itself."""
    from analytics_client.audit.export import readable

    return {"seq": entry.seq, **readable(entry)}


def report_record(report: Report) -> dict[str, Any]:
    """Return a report as plain values."""
    return {
        "verified": report.ok,
        "consortium": report.consortium,
        "size": report.size,
        "root": report.root,
        "since_ms": report.since_ms,
        "until_ms": report.until_ms,
        "heads": report.heads,
        "log_keys": list(report.log_keys),
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


def verified(
    database: Path | None,
    export_file: Path | None,
    governance_key: str,
    profile: Path | None,
    *,
    heads: Sequence[bytes] = (),
) -> tuple[History, Report]:
    """Return a log and what verifying it found: of a copy, of an export, or else the coordinator's own, which logs it.

    Raise ConfigError where two sources are given.
    """
    from analytics_client.audit import read_database, read_json_lines, verify_database
    from analytics_client.audit import verify as verify_history
    from analytics_client.audit_session import open_log
    from queries.errors import ConfigError

    if database is not None and export_file is not None:
        raise ConfigError("look at one thing at a time", hint="give --database or --export")
    if database is None and export_file is None:
        with open_log(profile or _default()) as session:
            report, history = session.verify(heads)
        return history, report
    key = _key(governance_key) if governance_key else _profile(profile).governance_key
    if database is not None:
        return read_database(database), verify_database(database, key, checkpoints=heads)
    assert export_file is not None  # noqa: S101 - one of the two is given
    history = read_json_lines(export_file)
    notes = [*history.checkpoints, *heads]
    found = verify_history(history.entries, None, history.memberships, key, checkpoints=notes, gone=history.gone)
    return history, found


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


def milliseconds(at: datetime | None) -> int:
    """Return a moment given in UTC as unix milliseconds, 0 for none."""
    return int(at.replace(tzinfo=UTC).timestamp() * 1000) if at is not None else 0


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

"""What `cohortium-server` does for the log as a database: check it, seal it, keep or erase the names behind its ids.

Everything heavy is imported inside the command that needs it, so that --help is quick.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from queries.errors import ConfigError, IdentityError
from trust.command import print_json

if TYPE_CHECKING:
    from analytics_server.audit.log import AuditLog
    from analytics_server.store import Store

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder, made by init.")]
Id = Annotated[str, typer.Option("--id", help="The participant's id, as the log has it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]

Before = Annotated[str, typer.Option(metavar="DATE", help="Midnight UTC of this day, as 2026-01-31, is where it ends.")]
Owner = Annotated[
    str,
    typer.Option(
        "--store", metavar="URL", help="The database as the tables' owner, where the coordinator's role is not."
    ),
]
YEARS = 6

log_app = typer.Typer(no_args_is_help=True, help="What becomes of old entries: seal, expire.")
identity_app = typer.Typer(no_args_is_help=True, help="Who is behind an id of the log: set, show, erase.")


def fsck(
    folder: Folder,
    *,
    head: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A signed head kept elsewhere; may be given more than once."),
    ] = None,
    json: Json = False,
) -> None:
    """Check the whole store: recompute every hash and root of the log, every signature, and what lies beside it."""
    from analytics_server import config as folders
    from analytics_server.audit import fsck as checking
    from analytics_server.store import SHARDS, Store
    from trust.identity import files

    config = folders.load(folder)
    store = Store.open(config.store_url, config.folder / SHARDS)
    try:
        report = checking.fsck(
            store,
            origin=config.log_origin,
            log_key=config.log_key(),
            governance_key=config.governance_key,
            heads=[files.read(path) for path in head or ()],
        )
    finally:
        store.close()
    if json:
        print_json(
            {
                "entries": report.size,
                "root": report.root,
                "heads": report.heads,
                "cosignatures": report.cosignatures,
                "epochs": report.epochs,
                "findings": [{"first": f.first, "last": f.last, "text": f.text} for f in report.findings],
            }
        )
    else:
        typer.echo(
            f"{report.size} entries, root {report.root.hex()}; {report.heads} signed heads, "
            f"{report.cosignatures} cosignatures, {report.epochs} memberships"
        )
        for finding in report.findings:
            typer.echo(f"  - {finding}")
    report.require()
    if not json:
        typer.echo("Everything is as it was written.")


@log_app.command("seal")
def log_seal(
    folder: Folder,
    *,
    before: Before = "",
    keep: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Leave at least the newest N entries in the database.")
    ] = None,
    store: Owner = "",
    json: Json = False,
) -> None:
    """Move old entries into a sealed file, up to a head that a witness cosigned. They stay readable.

    By age, by number, or what both let go.
    """
    from analytics_server.audit import sealing

    if not before and keep is None:
        raise ConfigError("say which entries are to be sealed", hint="--before 2026-01-31, --keep 1000000, or both")
    before_ms = _midnight_ms(before) if before else None
    with _log(folder, store) as (opened, log):
        now_ms = time.time_ns() // 1_000_000
        sealed = sealing.seal(opened, log, before_ms=before_ms, keep=keep or 0, now_ms=now_ms)
        path = opened.shards / sealed.file if sealed else None
    if json:
        print_json(
            {
                "file": str(path),
                "first": sealed.first,
                "end": sealed.end,
                "root": sealed.root,
                "sha256": sealed.file_hash,
            }
            if sealed
            else {}
        )
    elif sealed is None:
        typer.echo("Nothing to seal: no head over such entries only is cosigned, or they are sealed already.")
    else:
        typer.echo(
            f"Entries {sealed.first} to {sealed.end - 1} are in {path} now. Back that file up: it is the only copy."
        )


@log_app.command("expire")
def log_expire(
    folder: Folder,
    *,
    before: Annotated[
        str,
        typer.Option(metavar="DATE", help=f"Midnight UTC of this day, as 2026-01-31; {YEARS} years ago by default."),
    ] = "",
    store: Owner = "",
    json: Json = False,
) -> None:
    """Delete sealed files all of whose entries are older than a day. Their roots stay, so the log still verifies."""
    from analytics_server.audit import sealing

    before_ms = _midnight_ms(before) if before else _years_ago_ms(YEARS)
    with _log(folder, store) as (opened, log):
        expired = sealing.expire(opened, log, before_ms=before_ms, now_ms=time.time_ns() // 1_000_000)
    if json:
        print_json([{"file": shard.file, "first": shard.first, "end": shard.end} for shard in expired])
        return
    for shard in expired:
        typer.echo(
            f"Entries {shard.first} to {shard.end - 1} are deleted, with {shard.file}. Copies are yours to delete."
        )
    if not expired:
        typer.echo("No sealed file is that old.")


@contextmanager
def _log(folder: Path, owner: str) -> Iterator[tuple[Store, AuditLog]]:
    """Open the log of a coordinator's folder, as the tables' owner where that is another role."""
    from analytics_server import config as folders
    from analytics_server import governance as office

    config = folders.load(folder)
    with office.opened(replace(config, store_url=owner) if owner else config) as opened:
        yield opened


def _midnight_ms(day: str) -> int:
    try:
        return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        raise ConfigError(f"{day!r} is no day", hint="write it as 2026-01-31") from None


def _years_ago_ms(years: int) -> int:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    leap_day = (today.month, today.day) == (2, 29)
    return int(today.replace(year=today.year - years, day=28 if leap_day else today.day).timestamp() * 1000)


@identity_app.command("set")
def identity_set(
    folder: Folder,
    participant: Id,
    name: Annotated[str, typer.Option(help="The person's name.")],
    contact: Annotated[str, typer.Option(help="How to reach the person.")] = "",
) -> None:
    """Write down who is behind an id. The name is kept beside the log, never in it."""
    from analytics_server import config as folders
    from analytics_server import governance as office

    with office.opened(folders.load(folder)) as (store, log):
        office.identify(store, log, participant, name, contact)
    typer.echo(f"Who is behind {participant} is written down. Undo: cohortium-server identity erase {folder} --id ID")


@identity_app.command("show")
def identity_show(folder: Folder, participant: Id, json: Json = False) -> None:
    """Show who is behind an id."""
    from analytics_server import config as folders
    from analytics_server import governance as office

    with office.opened(folders.load(folder)) as (store, _), store.read() as uow:
        found = uow.identity(participant)
    if found is None:
        raise IdentityError(
            f"nobody is known behind {participant!r}", hint="nothing was written down, or it was erased"
        )
    if json:
        print_json({"id": found.id, "name": found.name, "contact": found.contact})
        return
    typer.echo(f"{found.id}: {found.name}" + (f", {found.contact}" if found.contact else ""))


@identity_app.command("erase")
def identity_erase(folder: Folder, participant: Id) -> None:
    """Forget who is behind an id. The log keeps the id, so that every proof stays valid."""
    from analytics_server import config as folders
    from analytics_server import governance as office

    with office.opened(folders.load(folder)) as (store, log):
        office.erase_identity(store, log, participant)
    typer.echo(
        f"Who is behind {participant} is forgotten here; backups and, on PostgreSQL, dead rows need their own care."
    )

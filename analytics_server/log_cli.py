"""What `cohortium-server` does for the log as a database: check it, and keep or erase the names behind its ids.

Everything heavy is imported inside the command that needs it, so that --help is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from queries.errors import IdentityError
from trust.command import print_json

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder, made by init.")]
Id = Annotated[str, typer.Option("--id", help="The participant's id, as the log has it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]

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
    from analytics_server.store import Store
    from trust.identity import files

    config = folders.load(folder)
    store = Store.open(config.store_url)
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

"""What `cohortium-server` does for the log as a database: check it.

Everything heavy is imported inside the command that needs it, so that --help is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trust.command import print_json

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder, made by init.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


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

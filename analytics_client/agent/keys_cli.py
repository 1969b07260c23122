"""What `cohortium-agent` does for the agent's keys: rotate and recover.

Everything is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trust.command import print_json

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The agent's folder, made by enrol.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def rotate(folder: Folder, json: Json = False) -> None:
    """Change the agent's keys; it may be running. The old ones are in force until governance publishes the new ones."""
    from analytics_client import profile as profiles
    from analytics_client import succession
    from trust.identity.keys import fingerprint

    public = succession.rotate(profiles.load(folder))
    if json:
        print_json({"next_key": public})
        return
    typer.echo(f"The key {fingerprint(public)} takes over once the operator has published the next membership.")


def recover(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The invitation that replaces the lost keys.")],
    folder: Folder,
    json: Json = False,
) -> None:
    """Give a stopped agent that lost its keys new ones under its id. Its ledger and its settings stay as they are."""
    from analytics_client import succession
    from trust.identity import keys

    mine = succession.recover(token, folder, roles=("agent",))
    public = keys.public_bytes(mine.identity_key())
    if json:
        print_json({"id": mine.id, "key": public})
        return
    typer.echo(f"{mine.id} has key {keys.fingerprint(public)} now: read it to your operator.")

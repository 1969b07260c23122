"""`cohortium identity`: a person's own key, shown, rotated, and replaced where it is lost.

Everything is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trust.command import print_json

app = typer.Typer(no_args_is_help=True, help="Your identity key: show, rotate, and recover under the same id.")
PEOPLE = ("analyst", "auditor", "steward", "operator")

Profile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        envvar="COHORTIUM_PROFILE",
        metavar="DIR",
        help="Your folder in the consortium.",
        show_default="~/.cohortium",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command()
def show(profile: Profile = None, as_json: Json = False) -> None:
    """Show who you are and the fingerprint of your key, to compare by telephone."""
    from analytics_client import profile as profiles
    from trust.identity import keys

    mine = profiles.load(profile or profiles.default_folder())
    public, following = keys.public_bytes(mine.identity_key()), mine.next_identity_key()
    waiting = keys.public_bytes(following) if following is not None else b""
    if as_json:
        print_json(
            {"id": mine.id, "role": mine.role, "consortium": mine.consortium, "key": public, "next_key": waiting}
        )
        return
    typer.echo(f"{mine.id}, {mine.role} of {mine.consortium}, key {keys.fingerprint(public)}")
    if waiting:
        typer.echo(f"to be followed by key {keys.fingerprint(waiting)} once governance has published it")


@app.command()
def rotate(profile: Profile = None, as_json: Json = False) -> None:
    """Change your identity key. The old one signs until governance has published a membership with the new one."""
    from analytics_client import profile as profiles
    from analytics_client import succession
    from trust.identity.keys import fingerprint

    mine = profiles.load(profile or profiles.default_folder())
    public = succession.rotate(mine)
    if as_json:
        print_json({"id": mine.id, "next_key": public})
        return
    typer.echo(f"The key {fingerprint(public)} takes over once the operator has published the next membership.")


@app.command()
def recover(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The invitation that replaces your lost key.")],
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Get another key under your id, with the invitation that your operator made for it. Your budgets stay yours."""
    from analytics_client import succession
    from analytics_client.profile import default_folder
    from trust.identity import keys

    mine = succession.recover(token, profile or default_folder(), roles=PEOPLE)
    public = keys.public_bytes(mine.identity_key())
    if as_json:
        print_json({"id": mine.id, "key": public, "folder": str(mine.folder)})
        return
    typer.echo(f"You are {mine.id} again, with key {keys.fingerprint(public)}: read it to your operator.")
    typer.echo("It counts as soon as the operator has published the membership that lists it.")

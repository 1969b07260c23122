"""`cohortium-server council`: what a governing quorum types; members sign on their own machines.

Must not know: how signatures are counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from queries.errors import ConfigError
from trust.command import print_json

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Govern by a quorum: propose what is to be signed, sign it as a member, publish it once enough have.",
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder, made by init --council.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="What is passed from member to member.")]
GovernanceOption = Annotated[
    Path | None, typer.Option("--governance", metavar="FOLDER", help="The governance folder, if not DIR/governance.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(metavar="KEY", help="A new file for the member's private key.")],
    json: Json = False,
) -> None:
    """Make a member's key. It stays with the member; the printed public key goes into council.toml."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from trust.identity import keys

    key = Ed25519PrivateKey.generate()
    keys.save(file, key)
    public = keys.public_bytes(key)
    if json:
        print_json({"key": str(file), "public": public})
    else:
        typer.echo(public.hex())


@app.command()
def propose(
    folder: Folder,
    file: File,
    *,
    schema: Annotated[
        Path | None,
        typer.Option(metavar="SCHEMA.toml", help="A dataset's description; else the next membership."),
    ] = None,
    governance: GovernanceOption = None,
    json: Json = False,
) -> None:
    """Write the next membership, or a dataset's description, for the members to sign. Changes nothing."""
    import time

    from analytics_server import config as folders
    from analytics_server import governance as office
    from trust.identity import files

    config = folders.load(folder)
    path = governance or folder / office.FOLDER
    council = office.load_council(path / office.COUNCIL)
    changes = None
    if schema is None:
        with office.opened(config) as (store, _):
            envelope, changes = office.propose_membership(store, config, path, council, now=int(time.time()))
    else:
        try:
            envelope = office.propose_dataset(council, files.read(schema).decode())
        except UnicodeDecodeError:
            raise ConfigError(f"{schema} is not UTF-8 text", hint="save it as UTF-8") from None
    files.write_new(file, envelope, secret=False)
    added, removed, rekeyed = (changes.added, changes.removed, changes.rekeyed) if changes else ((), (), ())
    rescoped = changes.rescoped if changes else ()
    if json:
        said = {"added": list(added), "removed": list(removed), "rekeyed": list(rekeyed), "rescoped": list(rescoped)}
        print_json({"file": str(file), "threshold": council.threshold, **said})
        return
    for name in added:
        typer.echo(f"+ {name}")
    for name in removed:
        typer.echo(f"- {name}")
    for name in rekeyed:
        typer.echo(f"~ {name}, another key")
    for name in rescoped:
        typer.echo(f"~ {name}, another scope")
    typer.echo(f"Next: {council.threshold} members run cohortium-server council sign {file} --key KEY")


@app.command()
def sign(
    file: File,
    *,
    key: Annotated[Path, typer.Option(metavar="KEY", help="The member's private key.")],
    json: Json = False,
) -> None:
    """Show what a file says, and add a member's signature to it. Needs no coordinator."""
    from trust.identity import council, files, keys

    envelope = files.read(file)
    says = council.describe(envelope)
    signed = council.add_signature(envelope, keys.load_signing_key(key))
    files.replace(file, signed, secret=False)
    have, need = council.count(signed)
    if json:
        print_json({"file": str(file), "says": says, "signatures": have, "threshold": need})
        return
    for line in says:
        typer.echo(line)
    typer.echo(
        f"{have} signatures, {need} needed." + (" Next: cohortium-server council publish" if have >= need else "")
    )


@app.command()
def publish(folder: Folder, file: File, json: Json = False) -> None:
    """Publish what enough members have signed."""
    from analytics_server import config as folders
    from analytics_server import governance as office
    from analytics_server.control import poke
    from trust.identity import council, files, membership

    config = folders.load(folder)
    envelope = files.read(file)
    with office.opened(config) as (store, log):
        if council.kind(envelope) == membership.PAYLOAD_TYPE:
            document = office.publish_signed(store, log, config, envelope)
            said: dict[str, object] = {"epoch": document.epoch, "hash": document.hash}
        else:
            dataset, schema_hash = office.publish_signed_dataset(store, log, config, envelope)
            said = {"dataset": dataset.name, "schema_hash": schema_hash}
    poke(folder)
    if json:
        print_json(said)
    else:
        name = next(iter(said))
        typer.echo(f"Published: {name} {said[name]}.")

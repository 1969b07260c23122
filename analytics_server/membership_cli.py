"""`cohortium-server membership`: who belongs to the consortium, shown, published, shut out, recovered.

Everything heavy is imported inside the command that needs it, so that --help is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from queries.errors import ConfigError
from trust.command import print_json

if TYPE_CHECKING:
    from analytics_server.config import ServerConfig
    from analytics_server.governance import Changes, Governance
    from analytics_server.store import KeyChangeRow
    from trust.identity.membership import MembershipDocument, Person

membership_app = typer.Typer(
    no_args_is_help=True, help="Who belongs to the consortium: show, pending, publish, revoke, recover."
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder, made by init.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
GovernanceOption = Annotated[
    Path | None, typer.Option("--governance", metavar="FOLDER", help="The governance folder, if not DIR/governance.")
]


@membership_app.command("show")
def membership_show(folder: Folder, json: Json = False) -> None:
    """Show the newest membership that governance signed."""
    from analytics_server import config as folders
    from analytics_server import governance as office

    config = folders.load(folder)
    with office.opened(config) as (store, _), store.read() as uow:
        document = office.current_membership(uow, config)
    if document is None:
        raise ConfigError("no membership has been published yet", hint=f"cohortium-server membership publish {folder}")
    _show(document, json=json)


@membership_app.command("pending")
def membership_pending(folder: Folder, json: Json = False) -> None:
    """Show what the next publication would change, with the fingerprint of every new key to compare by telephone."""
    from analytics_server import config as folders
    from analytics_server import governance as office
    from trust.identity.keys import fingerprint

    config = folders.load(folder)
    with office.opened(config) as (store, _), store.read() as uow:
        changes = office.pending(uow, config)
        rows = {row.id: row for row in uow.participants()}
        keys_to_come = uow.pending_key_changes()
    if json:
        added = [
            {
                "id": name,
                "role": rows[name].role,
                "organisation": rows[name].organisation,
                "identity_key": rows[name].identity_key,
            }
            for name in changes.added
        ]
        rekeyed = [{"id": name, **_new_key(keys_to_come[name])} for name in changes.rekeyed]
        rescoped = list(changes.rescoped)
        print_json({"added": added, "removed": list(changes.removed), "rekeyed": rekeyed, "rescoped": rescoped})
        return
    if not changes:
        typer.echo("Nothing is pending.")
    for name in changes.added:
        row = rows[name]
        of = f" of {row.organisation}" if row.organisation else ""
        kind = ", a service account" if row.service else ""
        typer.echo(f"+ {name}, {row.role}{of}{kind}, key {fingerprint(row.identity_key)}")
    for name in changes.rekeyed:
        change = keys_to_come[name]
        why = f"recovery: {change.reason}" if change.reason else "rotated by its holder"
        typer.echo(f"~ {name}, key {fingerprint(change.old_key)} -> {fingerprint(change.new_key)}, {why}")
    for name in changes.rescoped:
        typer.echo(f"~ {name}, service account: {rows[name].service}")
    for name in changes.removed:
        typer.echo(f"- {name}")


@membership_app.command("publish")
def membership_publish(folder: Folder, governance: GovernanceOption = None, json: Json = False) -> None:
    """Sign the next membership: everyone who has enrolled and was not revoked. Needs the governance folder."""
    from datetime import UTC, datetime

    from analytics_server import governance as office

    now = datetime.now(UTC)
    config, keys = governed(folder, governance)
    with office.opened(config) as (store, log):
        document, changes = office.publish_membership(store, log, config, keys, now=int(now.timestamp()))
    if office.renew_issuing_authority(governance or folder / office.FOLDER, config, now):
        typer.echo("note: the issuing CA was renewed for two years; start the coordinator again to use it", err=True)
    poke(config)
    if json:
        print_json(
            {
                "epoch": document.epoch,
                "hash": document.hash,
                "added": list(changes.added),
                "removed": list(changes.removed),
                "rekeyed": list(changes.rekeyed),
                "rescoped": list(changes.rescoped),
            }
        )
        return
    _say_published(document, changes)


@membership_app.command("revoke")
def membership_revoke(
    folder: Folder,
    id: Annotated[str, typer.Option(help="Whom to shut out.")],  # noqa: A002 - the option's name
    reason: Annotated[str, typer.Option(help="Goes into the audit log: no personal data.")] = "",
    json: Json = False,
) -> None:
    """Shut a participant out at once. The next `membership publish` makes it final for everyone."""
    from analytics_server import config as folders
    from analytics_server import governance as office

    config = folders.load(folder)
    with office.opened(config) as (store, log):
        office.revoke(store, log, id, reason)
    poke(config)
    if json:
        print_json({"revoked": id})
        return
    typer.echo(f"{id} is shut out. Next: cohortium-server membership publish {folder}")


@membership_app.command("recover")
def membership_recover(
    folder: Folder,
    id: Annotated[str, typer.Option(help="Who lost the key.")],  # noqa: A002 - the option's name
    reason: Annotated[str, typer.Option(help="Goes into the audit log and the membership: no personal data.")],
    valid_hours: Annotated[float, typer.Option(help="Hours until the invitation expires.")] = 24,
    json: Json = False,
) -> None:
    """Replace a lost key under the same id: shut its holder out at once, and print an invitation for the owner.

    Make sure whom you give it to. The new key is in force with the next `membership publish`; budgets stay with the id.
    """
    from datetime import UTC, datetime

    from analytics_server import config as folders
    from analytics_server.coordinator import enrolment
    from analytics_server.governance import opened

    config = folders.load(folder)
    with opened(config) as (store, log):
        invitation = enrolment.recover(
            store, log, config, participant=id, reason=reason, valid_hours=valid_hours, now=datetime.now(UTC)
        )
    poke(config)
    if json:
        print_json({"token": invitation.to_token(), "id": id, "expires_at": invitation.expires_at})
        return
    typer.echo(invitation.to_token())
    program = "cohortium-agent recover TOKEN DIR" if invitation.role == "agent" else "cohortium identity recover TOKEN"
    typer.echo(f"{id} is shut out until it has run: {program}", err=True)
    typer.echo(f"Then: cohortium-server membership publish {folder}", err=True)


def governed(folder: Path, governance: Path | None) -> tuple[ServerConfig, Governance]:
    """Read a coordinator's folder and the governance folder that goes with it. Raises ConfigError."""
    from analytics_server import config as folders
    from analytics_server import governance as office

    config = folders.load(folder)
    return config, office.open_governance(governance or folder / office.FOLDER, config)


def poke(config: ServerConfig) -> None:
    """Have a running coordinator look at its store again."""
    from analytics_server import control

    control.poke(config.folder)


def _roles(person: Person) -> str:
    return ", ".join(person.roles) + (" (service account)" if person.service is not None else "")


def _new_key(change: KeyChangeRow) -> dict[str, object]:
    return {"old_key": change.old_key, "new_key": change.new_key, "reason": change.reason}


def _show(document: MembershipDocument, *, json: bool) -> None:
    from datetime import UTC, datetime

    rows = [
        *((i.id, "agent", i.organisation, i.identity_key) for i in document.institutions),
        *((p.id, _roles(p), "", p.identity_key) for p in document.people),
    ]
    if json:
        print_json(
            {
                "consortium": document.consortium,
                "epoch": document.epoch,
                "hash": document.hash,
                "issued_at": document.issued_at,
                "valid_until": document.valid_until,
                "minimum_cohort": document.minimum_cohort,
                "colluders": document.colluders,
                "participants": [
                    dict(zip(("id", "role", "organisation", "identity_key"), row, strict=True)) for row in rows
                ],
            }
        )
        return
    issued = datetime.fromtimestamp(document.issued_at, UTC)
    typer.echo(
        f"Consortium {document.consortium}, epoch {document.epoch}, signed {issued:%Y-%m-%d %H:%M} UTC; "
        f"minimum cohort {document.minimum_cohort}, colluders {document.colluders}"
    )
    if document.valid_until:
        end = datetime.fromtimestamp(document.valid_until, UTC)
        typer.echo(f"It ends on {end:%Y-%m-%d}: publish the next one before that.")
    from trust.identity.keys import fingerprint

    table(("id", "role", "organisation", "key"), [(*row[:3], fingerprint(row[3])) for row in rows])


def _say_published(document: MembershipDocument, changes: Changes) -> None:
    if changes:
        parts = [f"added {', '.join(changes.added)}"] if changes.added else []
        parts += [f"removed {', '.join(changes.removed)}"] if changes.removed else []
        parts += [f"another scope for {', '.join(changes.rescoped)}"] if changes.rescoped else []
        parts += [f"new keys for {', '.join(changes.rekeyed)}"] if changes.rekeyed else []
        typer.echo(f"Epoch {document.epoch} is published: {'; '.join(parts)}.")
    else:
        typer.echo(f"Epoch {document.epoch} is in force; there was nothing to change.")
    organisations = {institution.organisation for institution in document.institutions}
    if len(organisations) < document.minimum_cohort:
        typer.echo(
            f"note: {len(organisations)} organisations have an agent; no query is answered below "
            f"{document.minimum_cohort}",
            err=True,
        )


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print rows under a header."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(soft_wrap=True).print(table)

"""`cohortium-server`: found a consortium, let people and agents in, publish, and run the coordinator.

Everything heavy is imported inside the command that needs it, so that --help is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from analytics_server import log_cli
from analytics_server.council_cli import app as council_app
from queries.errors import ConfigError
from trust.command import print_json, run_command

if TYPE_CHECKING:
    from analytics_server.config import ServerConfig
    from analytics_server.governance import Changes, Governance
    from trust.identity.membership import MembershipDocument

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Run a consortium's coordinator: init, then run; invite; membership publish; dataset add.",
)
membership_app = typer.Typer(
    no_args_is_help=True, help="Who belongs to the consortium: show, pending, publish, revoke."
)
dataset_app = typer.Typer(no_args_is_help=True, help="What can be asked about: add, list.")
app.command()(log_cli.fsck)
app.add_typer(log_cli.identity_app, name="identity")
app.add_typer(membership_app, name="membership")
app.add_typer(dataset_app, name="dataset")
app.add_typer(council_app, name="council")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder, made by init.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
GovernanceOption = Annotated[
    Path | None, typer.Option("--governance", metavar="FOLDER", help="The governance folder, if not DIR/governance.")
]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the coordinator.")],
    *,
    name: Annotated[str, typer.Option(help="The consortium's name: lower-case letters, digits, hyphens.")],
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="What participants will dial.")] = "localhost:7443",
    enrolment_address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where newcomers enrol; by default the next port.")
    ] = None,
    governance: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where governance keys go; by default DIR/governance.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The database, postgresql+psycopg://...; by default SQLite in DIR."),
    ] = None,
    minimum_cohort: Annotated[int, typer.Option(min=3, help="Fewest institutions behind any answer.")] = 3,
    colluders: Annotated[int, typer.Option(min=1, help="Institutions that may collude with the coordinator.")] = 1,
    council: Annotated[
        Path | None,
        typer.Option(metavar="COUNCIL.toml", help="Govern by a quorum: threshold, and a public key for each member."),
    ] = None,
    json: Json = False,
) -> None:
    """Found a consortium: make its keys, its certificate authority and an empty audit log."""
    from datetime import UTC, datetime

    from analytics_server import config as folders
    from analytics_server import governance as office

    config = office.initialise(
        folder,
        consortium=name,
        address=address,
        enrolment_address=enrolment_address or _next_port(address),
        governance=governance,
        store=_absolute(store) if store else folders.STATE,
        minimum_cohort=minimum_cohort,
        colluders=colluders,
        now=datetime.now(UTC),
        council=office.load_council(council) if council else None,
    )
    keys_in = governance or folder / office.FOLDER
    if json:
        print_json(
            {
                "consortium": config.consortium,
                "folder": str(folder),
                "governance": str(keys_in),
                "address": config.address,
                "enrolment_address": config.enrolment_address,
                "governance_key": config.governance_key,
            }
        )
        return
    typer.echo(f"Consortium {name} is founded in {folder}.")
    typer.echo(f"Its governance keys are in {keys_in}: back them up, and move them off this machine when you can.")
    typer.echo(f"Next: cohortium-server run {folder}")
    typer.echo(f"      cohortium-server invite {folder} --role agent --id ID --organisation NAME")


@app.command()
def run(folder: Folder, json: Json = False) -> None:
    """Run the coordinator until it is stopped (Ctrl-C or SIGTERM). Prints one line once it is ready."""
    from analytics_server import config as folders

    config = folders.load(folder)
    _log_to_stderr()
    from analytics_server.coordinator.server import serve

    def ready(address: str, enrolment_address: str) -> None:
        if json:
            print_json({"address": address, "enrolment_address": enrolment_address})
        else:
            typer.echo(
                f"Consortium {config.consortium} is ready: members on {address}, newcomers on {enrolment_address}"
            )
        sys.stdout.flush()

    serve(config, ready)


@app.command()
def invite(
    folder: Folder,
    *,
    role: Annotated[str, typer.Option(help="agent, analyst, auditor, steward or operator.")],
    id: Annotated[str, typer.Option(help="The newcomer's id, never given twice.")],  # noqa: A002 - the option's name
    organisation: Annotated[str, typer.Option(metavar="NAME", help="Whose agent it is; counts once in a cohort.")] = "",
    valid_hours: Annotated[float, typer.Option(help="Hours until the invitation expires.")] = 24,
    json: Json = False,
) -> None:
    """Print an invitation token, once. Give it to the newcomer over a channel that you trust."""
    from datetime import UTC, datetime

    from analytics_server import config as folders
    from analytics_server.coordinator import enrolment
    from analytics_server.governance import opened

    config = folders.load(folder)
    with opened(config) as (store, log):
        invitation = enrolment.invite(
            store,
            log,
            config,
            role=role,
            participant=id,
            organisation=organisation,
            valid_hours=valid_hours,
            now=datetime.now(UTC),
        )
    _poke(config)
    if json:
        print_json({"token": invitation.to_token(), "id": id, "role": role, "expires_at": invitation.expires_at})
        return
    typer.echo(invitation.to_token())
    command = "cohortium-agent enrol TOKEN DIR" if role == "agent" else "cohortium enrol TOKEN"
    typer.echo(f"{id} joins once within {valid_hours:g} hours with: {command}", err=True)


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
        print_json({"added": added, "removed": list(changes.removed)})
        return
    if not changes:
        typer.echo("Nothing is pending.")
    for name in changes.added:
        row = rows[name]
        of = f" of {row.organisation}" if row.organisation else ""
        typer.echo(f"+ {name}, {row.role}{of}, key {fingerprint(row.identity_key)}")
    for name in changes.removed:
        typer.echo(f"- {name}")


@membership_app.command("publish")
def membership_publish(folder: Folder, governance: GovernanceOption = None, json: Json = False) -> None:
    """Sign the next membership: everyone who has enrolled and was not revoked. Needs the governance folder."""
    from datetime import UTC, datetime

    from analytics_server import governance as office

    now = datetime.now(UTC)
    config, keys = _governed(folder, governance)
    with office.opened(config) as (store, log):
        document, changes = office.publish_membership(store, log, config, keys, now=int(now.timestamp()))
    if office.renew_issuing_authority(governance or folder / office.FOLDER, config, now):
        typer.echo("note: the issuing CA was renewed for two years; start the coordinator again to use it", err=True)
    _poke(config)
    if json:
        print_json(
            {
                "epoch": document.epoch,
                "hash": document.hash,
                "added": list(changes.added),
                "removed": list(changes.removed),
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
    _poke(config)
    if json:
        print_json({"revoked": id})
        return
    typer.echo(f"{id} is shut out. Next: cohortium-server membership publish {folder}")


@dataset_app.command("add")
def dataset_add(
    folder: Folder,
    schema: Annotated[Path, typer.Argument(metavar="SCHEMA.toml", help="Columns, bounds, categories, privacy unit.")],
    governance: GovernanceOption = None,
    json: Json = False,
) -> None:
    """Publish a dataset's description, signed by governance. The same name again replaces it."""
    from analytics_server import governance as office
    from trust.identity import files

    config, keys = _governed(folder, governance)
    try:
        text = files.read(schema).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{schema} is not UTF-8 text", hint="save it as UTF-8") from None
    with office.opened(config) as (store, log):
        dataset, schema_hash = office.publish_dataset(store, log, keys, text)
    _poke(config)
    if json:
        print_json({"dataset": dataset.name, "schema_hash": schema_hash})
        return
    typer.echo(f"Dataset {dataset.name} is published with {len(dataset.columns)} columns ({schema_hash.hex()[:16]}).")


@dataset_app.command("list")
def dataset_list(folder: Folder, json: Json = False) -> None:
    """List the published datasets."""
    from analytics_server import config as folders
    from analytics_server import governance as office
    from trust.identity.dataset import verify_dataset

    config = folders.load(folder)
    with office.opened(config) as (store, _), store.read() as uow:
        published = [verify_dataset(row.envelope, config.governance_key) for row in uow.datasets().values()]
    if json:
        print_json(
            [
                {"dataset": d.name, "columns": [c.name for c in d.columns], "schema_hash": schema_hash}
                for d, schema_hash in published
            ]
        )
        return
    if not published:
        typer.echo(f"No dataset is published. Next: cohortium-server dataset add {folder} SCHEMA.toml")
        return
    _table(
        ("dataset", "columns", "privacy unit", "schema hash"),
        [(d.name, str(len(d.columns)), d.privacy_unit or "row", h.hex()[:16]) for d, h in published],
    )


def main() -> NoReturn:
    """Run the command."""
    run_command(app)


def _governed(folder: Path, governance: Path | None) -> tuple[ServerConfig, Governance]:
    from analytics_server import config as folders
    from analytics_server import governance as office

    config = folders.load(folder)
    return config, office.open_governance(governance or folder / office.FOLDER, config)


def _poke(config: ServerConfig) -> None:
    from analytics_server import control

    control.poke(config.folder)


def _show(document: MembershipDocument, *, json: bool) -> None:
    from datetime import UTC, datetime

    rows = [
        *((i.id, "agent", i.organisation, i.identity_key) for i in document.institutions),
        *((p.id, ", ".join(p.roles), "", p.identity_key) for p in document.people),
    ]
    if json:
        print_json(
            {
                "consortium": document.consortium,
                "epoch": document.epoch,
                "hash": document.hash,
                "issued_at": document.issued_at,
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
    from trust.identity.keys import fingerprint

    _table(("id", "role", "organisation", "key"), [(*row[:3], fingerprint(row[3])) for row in rows])


def _say_published(document: MembershipDocument, changes: Changes) -> None:
    if changes:
        parts = [f"added {', '.join(changes.added)}"] if changes.added else []
        parts += [f"removed {', '.join(changes.removed)}"] if changes.removed else []
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


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(soft_wrap=True).print(table)


def _next_port(address: str) -> str:
    from trust.rpc.channel import split_address

    _, port = split_address(address)
    return f"{address.rpartition(':')[0]}:{port + 1}"


def _absolute(store: str) -> str:
    """Return the URL with an SQLite file named from the root: it must not depend on where `run` is started."""
    plain = "sqlite:///"
    if store.startswith(plain) and store != plain:
        return plain + str(Path(store[len(plain) :]).absolute())
    return store


def _log_to_stderr() -> None:
    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )

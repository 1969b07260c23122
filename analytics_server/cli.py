"""`cohortium-server`: found a consortium, let people and agents in, publish, and run the coordinator.

Everything heavy is imported inside the command that needs it, so that --help is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from analytics_server import log_cli, service_cli
from analytics_server.council_cli import app as council_app
from analytics_server.membership_cli import Folder, GovernanceOption, Json, governed, membership_app, poke, table
from queries.errors import ConfigError
from trust.command import print_json, run_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Run a consortium's coordinator: init, then run; invite; membership publish; dataset add.",
)
dataset_app = typer.Typer(no_args_is_help=True, help="What can be asked about: add, list.")
app.command()(log_cli.fsck)
app.add_typer(log_cli.identity_app, name="identity")
app.add_typer(log_cli.log_app, name="log")
app.add_typer(membership_app, name="membership")
app.add_typer(dataset_app, name="dataset")
app.add_typer(council_app, name="council")
app.add_typer(service_cli.service_app, name="service")


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
    service_days: Annotated[
        float, typer.Option(metavar="DAYS", help="Make it a service account, no person's, for so long.")
    ] = 0,
    datasets: Annotated[str, typer.Option(metavar="A,B", help="What a service account may ask of.")] = "",
    person: Annotated[
        str,
        typer.Option(metavar="EMAIL", help="The identity provider has to vouch for this person; or sub:SUBJECT."),
    ] = "",
    json: Json = False,
) -> None:
    """Print an invitation token, once. Give it to the newcomer over a channel that you trust."""
    from datetime import UTC, datetime

    from analytics_server import config as folders
    from analytics_server.coordinator import enrolment
    from analytics_server.governance import opened

    now = datetime.now(UTC)
    if bool(datasets) > bool(service_days):
        raise ConfigError("--datasets is of a service account", hint="--service-days 90")
    service = service_cli.scope(role, datasets, service_days, now) if service_days else None
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
            now=now,
            service=service,
            person=person,
        )
    poke(config)
    if json:
        print_json({"token": invitation.to_token(), "id": id, "role": role, "expires_at": invitation.expires_at})
        return
    typer.echo(invitation.to_token())
    command = "cohortium-agent enrol TOKEN DIR" if role == "agent" else "cohortium enrol TOKEN"
    typer.echo(f"{id} joins once within {valid_hours:g} hours with: {command}", err=True)


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

    config, keys = governed(folder, governance)
    try:
        text = files.read(schema).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{schema} is not UTF-8 text", hint="save it as UTF-8") from None
    with office.opened(config) as (store, log):
        dataset, schema_hash = office.publish_dataset(store, log, keys, text)
    poke(config)
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
    table(
        ("dataset", "columns", "privacy unit", "schema hash"),
        [(d.name, str(len(d.columns)), d.privacy_unit or "row", h.hex()[:16]) for d, h in published],
    )


def main() -> NoReturn:
    """Run the command."""
    run_command(app)


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

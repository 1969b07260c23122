"""`cohortium-server service`: accounts that no person is behind, listed and scoped.

Everything heavy is imported inside the command that needs it, so that --help is quick.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from analytics_server.membership_cli import Folder, Json, poke, table
from trust.command import print_json

if TYPE_CHECKING:
    from trust.identity.service import Service

service_app = typer.Typer(
    no_args_is_help=True, help="Service accounts, made with invite --service-days: list, set their scope."
)


@service_app.command("list")
def service_list(folder: Folder, json: Json = False) -> None:
    """List the service accounts with their datasets and their end, as the next membership would have them."""
    from analytics_server import config as folders
    from analytics_server import governance as office
    from trust.identity.service import Service

    with office.opened(folders.load(folder)) as (store, _), store.read() as uow:
        rows = [row for row in uow.participants() if row.service]
    found = [(row, scope) for row in rows if (scope := Service.from_text(row.service)) is not None]
    if json:
        print_json(
            [
                {
                    "id": row.id,
                    "role": row.role,
                    "datasets": list(scope.datasets),
                    "expires_at": scope.expires_at,
                    "revoked": row.revoked,
                }
                for row, scope in found
            ]
        )
        return
    if not found:
        typer.echo(f"There are none. Next: cohortium-server invite {folder} --service-days 90 --datasets NAME")
        return
    table(
        ("id", "role", "datasets", "until", ""),
        [
            (row.id, row.role, ", ".join(scope.datasets), _day(scope.expires_at), "revoked" if row.revoked else "")
            for row, scope in found
        ],
    )


@service_app.command("set")
def service_set(
    folder: Folder,
    *,
    id: Annotated[str, typer.Option(help="The service account.")],  # noqa: A002 - the option's name
    service_days: Annotated[float, typer.Option(metavar="DAYS", help="For how long it may act from now.")],
    datasets: Annotated[str, typer.Option(metavar="A,B", help="What it may ask of from now on.")] = "",
    json: Json = False,
) -> None:
    """Prolong a service account, or give it other datasets: in force with the next `membership publish`."""
    from analytics_server import config as folders
    from analytics_server import governance as office

    now = datetime.now(UTC)
    end = int((now + timedelta(days=service_days)).timestamp())
    config = folders.load(folder)
    with office.opened(config) as (store, log):
        scope = office.scope_service(
            store, log, id, datasets=_names(datasets), expires_at=end, now=int(now.timestamp())
        )
    poke(config)
    if json:
        print_json({"id": id, "datasets": list(scope.datasets), "expires_at": scope.expires_at})
        return
    typer.echo(f"{id} may act until {_day(end)}. Next: cohortium-server membership publish {folder}")


def scope(role: str, datasets: str, service_days: float, now: datetime) -> Service:
    """Return what is written on the command line. Raises IdentityError where no such account can be."""
    from trust.identity.service import Service

    end = int((now + timedelta(days=service_days)).timestamp())
    return Service.of(role, _names(datasets), end, now=int(now.timestamp()))


def _names(datasets: str) -> list[str]:
    return [name.strip() for name in datasets.split(",") if name.strip()]


def _day(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"

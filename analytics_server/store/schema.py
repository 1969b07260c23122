"""Which version of the tables a database holds, and how it gets to the one that this code needs.

Opening a store compares one row; Alembic is loaded only to create or upgrade. Must not know: what the tables are for.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from queries.errors import ConfigError

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
"""Every migration, oldest first. The last one is what this code needs."""
HEAD = REVISIONS[-1]
UPGRADE = "python -m analytics_server.store upgrade"
_MIGRATING = 0x636F686F727469  # the advisory lock of two upgrades started at once: "cohorti"


def revision(connection: Connection) -> str | None:
    """Return the version that the database is at, None where it holds no store."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def check(connection: Connection) -> None:
    """Raise ConfigError, with the next step, unless the database is at HEAD."""
    found = revision(connection)
    if found == HEAD:
        return
    if found is None:
        raise ConfigError("the database holds no store yet", hint="run: cohortium-server init")
    if found in REVISIONS:
        raise ConfigError(
            f"the store is at version {found}, this program needs {HEAD}", hint=f"back it up, then run: {UPGRADE} URL"
        )
    raise ConfigError(
        f"the store is at version {found}, newer than this program knows ({HEAD})", hint="upgrade cohortium"
    )


def migrate(connection: Connection) -> None:
    """Bring the database to HEAD, inside the transaction that the caller has begun."""
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
    config = Config()
    config.set_main_option("script_location", "analytics_server.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

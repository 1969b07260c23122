"""`python -m analytics_server.store`: upgrade a store, or give a PostgreSQL role the rights of a writer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analytics_server.store.roles import grant_writer
from analytics_server.store.store import Store
from queries.errors import CohortiumError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m analytics_server.store", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    upgrade = commands.add_parser("upgrade", help="bring a store to this program's version, in one transaction")
    upgrade.add_argument("url", help="sqlite:////path/state.sqlite or postgresql+psycopg://...")
    index = commands.add_parser("reindex", help="make the search table again from the entries")
    index.add_argument("url")
    index.add_argument(
        "--shards", type=Path, help="the folder of sealed files, DIR/shards; by default beside SQLite's file"
    )
    grant = commands.add_parser("grant", help="let a PostgreSQL role add records, and change none")
    grant.add_argument("url", help="as the owner of the tables")
    grant.add_argument("role")
    given = parser.parse_args(arguments)
    try:
        if given.command == "grant":
            grant_writer(given.url, given.role)
            return 0
        store = Store.upgrade(given.url) if given.command == "upgrade" else Store.open(given.url, given.shards)
        if given.command == "reindex":
            with store.begin() as uow:
                uow.rebuild_index()
        store.close()
    except CohortiumError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The ledger's file: its tables, opening it, and noticing when it is not the ledger that belongs here.

Beside the SQLite file lies a marker with the ledger's identity. A marker without a ledger, another ledger's identity, a
damaged file or accounts that do not add up are refused: a lost ledger would hand out budget that was already spent.
Must not know: when something may be spent (see `ledger`).
"""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from queries.accounting import Curve
from queries.errors import BudgetError, ConfigError
from trust.identity import files

MARKER = "ledger.id"
TOTAL = ""
"""Stands for all analysts together in the account table."""
_FORMAT = 1
_BUSY_MS = 30_000
_LOST = "run: cohortium-agent ledger DIR --acknowledge-loss 'REASON' (it starts an empty ledger and records why)"

metadata = sa.MetaData()
identity = sa.Table("identity", metadata, sa.Column("id", sa.Text, primary_key=True))
head = sa.Table(
    "head",
    metadata,
    sa.Column("only", sa.Integer, sa.CheckConstraint("only = 1"), primary_key=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("root", sa.LargeBinary, nullable=False),
)
account = sa.Table(
    "account",
    metadata,
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("analyst", sa.Text, primary_key=True),  # TOTAL: everyone's spending on the dataset
    sa.Column("spent", sa.Text, nullable=False),  # JSON list of nano-units per order, reservations included
    sa.Column("rho_nano", sa.Integer, nullable=False),  # the same as a plain sum, for people and for the log
    sa.Column("delta", sa.Float, nullable=False),  # at which epsilon is budgeted, as last applied
    sa.Column("epsilon", sa.Float, nullable=False),  # the budget as last applied
)
request = sa.Table(
    "request",
    metadata,
    sa.Column("id", sa.LargeBinary, primary_key=True),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("dataset", sa.Text, nullable=False),
    sa.Column("analyst", sa.Text, nullable=False),
    sa.Column("cost", sa.Text, nullable=False),  # JSON list, as in account
    sa.Column("rho_nano", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, sa.CheckConstraint("state IN ('reserved', 'charged', 'released')"), nullable=False),
    sa.Column("at", sa.Integer, nullable=False),  # unix seconds of the last change
    sa.Column("change", sa.Integer, nullable=False, index=True),  # ascending with every change: orders the history
)
round_ = sa.Table(
    "round",
    metadata,
    sa.Column("id", sa.LargeBinary, primary_key=True),
    sa.Column("request", sa.LargeBinary, sa.ForeignKey("request.id"), nullable=False, index=True),
    sa.Column(
        "state",
        sa.Text,
        sa.CheckConstraint("state IN ('reserved', 'uploaded', 'revealed', 'released')"),
        nullable=False,
    ),
)
# The rule that matters most stands in the file itself: of one request, one vector leaves.
sa.Index(
    "one_vector_per_request",
    round_.c.request,
    unique=True,
    sqlite_where=sa.text("state IN ('uploaded', 'revealed')"),
)
# A training job pays for all its rounds before the first; each of its rounds is a request of its own in `request`, paid
# from what the job holds, so that every rule about requests holds for it.
job = sa.Table(
    "job",
    metadata,
    sa.Column("id", sa.LargeBinary, primary_key=True),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("dataset", sa.Text, nullable=False),
    sa.Column("analyst", sa.Text, nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("cost", sa.Text, nullable=False),  # of all slots together, JSON list as in account
    sa.Column("rho_nano", sa.Integer, nullable=False),
    sa.Column("expires_at", sa.Integer, nullable=False),  # unix seconds, after which no round can follow
    sa.Column("ended", sa.Integer, sa.CheckConstraint("ended IN (0, 1)"), nullable=False),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),  # why it ended
)
job_request = sa.Table(
    "job_request",
    metadata,
    sa.Column("request", sa.LargeBinary, sa.ForeignKey("request.id"), primary_key=True),
    sa.Column("job", sa.LargeBinary, sa.ForeignKey("job.id"), nullable=False, index=True),
)
# What a steward took off an account by renewing it: accounts hold what requests cost, less this.
renewal = sa.Table(
    "renewal",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("at", sa.Integer, nullable=False),
    sa.Column("dataset", sa.Text, nullable=False),
    sa.Column("analyst", sa.Text, nullable=False),  # or TOTAL
    sa.Column("cost", sa.Text, nullable=False),  # JSON list, as in account
    sa.Column("rho_nano", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)
note = sa.Table(
    "note",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("at", sa.Integer, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)

# The statements of a query's way through the ledger, built once: building them takes longer than running them.
_newest = sa.select(sa.func.coalesce(sa.func.max(request.c.change), 0) + 1).scalar_subquery()
FIND_ROUND = sa.select(round_.c.id).where(round_.c.id == sa.bindparam("round_id"))
FIND_REQUEST = sa.select(request).where(request.c.id == sa.bindparam("request_id"))
FIND_SPENT = sa.select(account.c.spent, account.c.rho_nano).where(
    account.c.dataset == sa.bindparam("of_dataset"), account.c.analyst == sa.bindparam("of_analyst")
)
FIND_HEAD = sa.select(head)
ADD_ROUND = round_.insert()
ADD_REQUEST = request.insert().values(change=_newest)
PUT_ACCOUNT = account.insert().prefix_with("OR REPLACE")
PUT_HEAD = head.insert().prefix_with("OR REPLACE")
MOVE_REQUEST = (
    request.update()
    .where(request.c.id == sa.bindparam("request_id"))
    .values(state=sa.bindparam("after"), at=sa.bindparam("now"), change=_newest)
)
MOVE_ROUND = (
    round_.update()
    .where(
        round_.c.id == sa.bindparam("round_id"),
        round_.c.request == sa.bindparam("request_id"),
        round_.c.state == sa.bindparam("before"),
    )
    .values(state=sa.bindparam("after"))
)
END_ROUNDS = (
    round_.update()
    .where(round_.c.request == sa.bindparam("request_id"), round_.c.state == "reserved")
    .values(state="released")
)
FIND_JOB = sa.select(job).where(job.c.id == sa.bindparam("job_id"))
ROUNDS_OF_RUNNING_JOBS = (
    sa.select(job_request.c.request).join(job, job.c.id == job_request.c.job).where(job.c.ended == 0)
)
JOB_OF_REQUEST = (
    sa.select(job).join(job_request, job.c.id == job_request.c.job).where(job_request.c.request == sa.bindparam("step"))
)
SLOTS_TAKEN = (
    sa.select(sa.func.count())
    .select_from(job_request.join(request, request.c.id == job_request.c.request))
    .where(job_request.c.job == sa.bindparam("job_id"), request.c.state != "released")
)


def attach(path: Path, *, create: bool) -> sa.Engine:
    """Open the ledger's file, checked from end to end; with `create`, make it in a folder that never had one.

    Raise ConfigError where it is missing, replaced, damaged or does not add up.
    """
    marker = path.with_name(MARKER)
    present = path.exists() and path.stat().st_size > 0
    if not present and marker.exists():
        raise ConfigError("this agent's ledger is gone: nothing can be served without it", hint=_LOST)
    if not present and not create:
        raise ConfigError("this agent has no ledger yet", hint="it is made by the first run of the agent")
    engine = _engine(path)
    try:
        with failures(), engine.begin() as connection:
            name = _create(connection) if create and _is_new(connection, marker) else _check(connection, create=create)
        if not marker.exists() and create:
            files.write_new(marker, name.encode(), secret=False)
        elif not marker.exists() or marker.read_text().strip() != name:
            raise ConfigError("the ledger here is not the one that belongs to this agent", hint=_LOST)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def failures() -> Iterator[None]:
    """Turn what SQLite reports into a ConfigError that says what it means for the agent, without paths or values."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        text = str(error.orig).lower()
        if "malformed" in text or "not a database" in text:
            raise ConfigError("this agent's ledger is damaged: nothing can be served without it", hint=_LOST) from error
        if "locked" in text or "busy" in text:
            raise ConfigError("the ledger is in use by another program", hint="end it, then try again") from error
        raise ConfigError(
            "the ledger cannot be written, so nothing is served",
            hint="free space on its disk and check its permissions",
        ) from error


def dump(curve: Curve) -> str:
    """Return a curve as the text that is stored."""
    return json.dumps(curve.nano)


def load(text: str) -> Curve:
    """Return the stored curve. Raise ConfigError where it is none."""
    try:
        return Curve(tuple(int(nano) for nano in json.loads(text)))
    except (BudgetError, TypeError, ValueError) as error:
        raise ConfigError("this agent's ledger is damaged: a cost in it cannot be read", hint=_LOST) from error


def _engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_MS / 1000})

    def configure(raw: Any, _record: object) -> None:
        raw.isolation_level = None  # transactions begin where `begin` says, not where the driver guesses
        raw.execute("PRAGMA journal_mode = WAL")
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("PRAGMA foreign_keys = ON")

    def begin(connection: sa.Connection) -> None:
        mode = connection.get_execution_options().get("ledger_begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", begin)
    return engine


def _is_new(connection: sa.Connection, marker: Path) -> bool:
    unused = bool(connection.exec_driver_sql("PRAGMA user_version").scalar_one() == 0)
    if unused and marker.exists():
        raise ConfigError("this agent's ledger is gone: nothing can be served without it", hint=_LOST)
    return unused


def _create(connection: sa.Connection) -> str:
    metadata.create_all(connection)
    name = secrets.token_hex(16)
    connection.execute(identity.insert().values(id=name))
    connection.exec_driver_sql(f"PRAGMA user_version = {_FORMAT}")
    return name


def _check(connection: sa.Connection, *, create: bool) -> str:
    """Return the ledger's identity after reading every page and adding everything up again."""
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if version == 0:
        raise ConfigError("this agent's ledger is gone: nothing can be served without it", hint=_LOST)
    if version != _FORMAT:
        raise ConfigError("this ledger was written by a newer cohortium-agent", hint="install that version or later")
    if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one() != "ok":
        raise ConfigError("this agent's ledger is damaged: nothing can be served without it", hint=_LOST)
    if create:
        metadata.create_all(connection)  # what a ledger of an earlier version lacks
    with_jobs = sa.inspect(connection).has_table(job.name)
    sums: dict[tuple[str, str], Curve] = defaultdict(Curve.zero)
    spending = sa.select(request.c.dataset, request.c.analyst, request.c.cost).where(request.c.state != "released")
    if with_jobs:  # what a running job holds covers its rounds
        spending = spending.where(request.c.id.not_in(ROUNDS_OF_RUNNING_JOBS))
    held = sa.select(job.c.dataset, job.c.analyst, job.c.cost).where(job.c.ended == 0)
    for row in (*connection.execute(spending), *(connection.execute(held) if with_jobs else ())):
        for owner in (TOTAL, row.analyst):
            sums[row.dataset, owner] += load(row.cost)
    if sa.inspect(connection).has_table(renewal.name):
        for row in connection.execute(sa.select(renewal)):
            sums[row.dataset, row.analyst] -= load(row.cost)
    stored = {(row.dataset, row.analyst): load(row.spent) for row in connection.execute(sa.select(account))}
    if any(stored.get(key, Curve.zero()) != sums.get(key, Curve.zero()) for key in stored.keys() | sums.keys()):
        raise ConfigError("this agent's ledger does not add up: it was changed from outside", hint=_LOST)
    name: str = connection.execute(sa.select(identity.c.id)).scalar_one()
    return name

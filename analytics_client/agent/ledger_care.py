"""What looks after the ledger: old copies put back, clocks set back, renewals, and what the steward decided.

Everything a steward decides about the ledger is noted in it with a reason, and queued for the consortium's log, where
others see it too. Functions over an open ledger or one of its transactions. Must not know: queries, data, the network.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from analytics_client.agent import ledger_file as file
from analytics_client.agent.ledger_file import (
    TOTAL,
    account,
    dump,
    job,
    job_request,
    load,
    metadata,
    note,
    renewal,
    request,
)
from queries.accounting import Curve
from queries.errors import ClockError, ConfigError, PolicyDenied

if TYPE_CHECKING:
    from analytics_client.agent.ledger import Ledger

CLOCK_SLACK_S = 300
"""How far the clock may go back unnoticed: what NTP and a leap second do."""
DAY_S = 86_400
MAX_REASON = 300

# The newest head that this agent has cosigned and its ledger has not seen: an old copy was put back.
behind = sa.Table(
    "behind",
    metadata,
    sa.Column("only", sa.Integer, sa.CheckConstraint("only = 1"), primary_key=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("root", sa.LargeBinary, nullable=False),
)
# There while a loss was acknowledged and no newer head has been met yet: that one is no second finding.
forgiven = sa.Table(
    "forgiven",
    metadata,
    sa.Column("only", sa.Integer, sa.CheckConstraint("only = 1"), primary_key=True),
)
clock = sa.Table(
    "clock",
    metadata,
    sa.Column("only", sa.Integer, sa.CheckConstraint("only = 1"), primary_key=True),
    sa.Column("latest", sa.Integer, nullable=False),  # unix seconds
)
statement = sa.Table(
    "statement",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("at", sa.Integer, nullable=False),
    sa.Column("about", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("subject", sa.LargeBinary, nullable=False),  # hash of what it is about, or empty
    sa.Column("sent", sa.Integer, nullable=False, server_default="0"),
)
_LATEST = sa.select(clock.c.latest)
_PUT_LATEST = clock.insert().prefix_with("OR REPLACE")


@dataclass(frozen=True, slots=True)
class Statement:
    """What this institution has to say in the consortium's log. `about` is policy, ledger or approval."""

    number: int
    at: int
    about: str
    text: str
    subject: bytes


def checked_reason(reason: str) -> str:
    """Return a steward's reason, one printable line. Raise ConfigError where there is none."""
    words = " ".join(reason.split())
    if not words or len(words) > MAX_REASON or not words.isprintable():
        raise ConfigError(
            "a decision about the ledger needs a reason",
            hint=f"one line of at most {MAX_REASON} characters; the consortium can read it",
        )
    return words


def record(connection: sa.Connection, text: str, *, about: str = "ledger", subject: bytes = b"") -> None:
    """Note a decision in the ledger, and queue it for the consortium's log."""
    now = int(time.time())
    connection.execute(note.insert().values(at=now, text=text))
    state(connection, text, about=about, subject=subject)


def state(connection: sa.Connection, text: str, *, about: str, subject: bytes = b"") -> None:
    """Queue a statement for the consortium's log."""
    connection.execute(statement.insert().values(at=int(time.time()), about=about, text=text, subject=subject))


def unsent(ledger: Ledger) -> Sequence[Statement]:
    """Return what the coordinator has not yet confirmed as logged, oldest first."""
    columns = statement.c
    waiting = sa.select(statement).where(columns.sent == 0).order_by(columns.number)
    with ledger.transaction(write=False) as connection:
        rows = connection.execute(waiting).all()
    return [Statement(row.number, row.at, row.about, row.text, row.subject) for row in rows]


def sent(ledger: Ledger, number: int) -> None:
    """Record that a statement is in the consortium's log."""
    with ledger.transaction() as connection:
        connection.execute(statement.update().where(statement.c.number == number).values(sent=1))


def latest_subject(ledger: Ledger, about: str) -> bytes:
    """Return the hash that the last statement of a kind was about; empty before the first."""
    columns = statement.c
    newest = sa.select(columns.subject).where(columns.about == about).order_by(columns.number.desc()).limit(1)
    with ledger.transaction(write=False) as connection:
        found = connection.execute(newest).scalar()
    return b"" if found is None else bytes(found)


# --- old copies put back -----------------------------------------------------------------------------------------


def compare(ledger: Ledger, size: int, root: bytes) -> None:
    """Compare the ledger with a head that this agent is proven to have cosigned.

    A head is durable here before it is cosigned, so a ledger that does not know it is an older copy. That is
    remembered; raise ConfigError as `refuse_if_behind`.
    """
    with ledger.transaction() as connection:
        row = connection.execute(file.FIND_HEAD).first()
        known = (0, b"") if row is None else (row.size, row.root)
        if size < known[0] or (size, root) == known:
            return
        if connection.execute(sa.select(forgiven)).first() is not None:
            connection.execute(forgiven.delete())
            connection.execute(file.PUT_HEAD, {"only": 1, "size": size, "root": root})
            return
        connection.execute(behind.insert().prefix_with("OR REPLACE").values(only=1, size=size, root=root))
    refuse_if_behind(ledger)


def refuse_if_behind(ledger: Ledger) -> None:
    """Raise ConfigError where the ledger was found to be an older copy, and no steward has acknowledged it."""
    with ledger.transaction(write=False) as connection:
        found = connection.execute(sa.select(behind)).first()
    if found is not None:
        raise ConfigError(
            "this agent's ledger is an old copy: the agent has witnessed more of the log than this ledger knows, so "
            "what was spent since is missing, and nothing is served",
            hint="put the newest copy back; if there is none, weigh what was spent (cohortium audit log), lower the "
            "budgets, and run: cohortium-agent ledger DIR --acknowledge 'REASON'",
        )


def forgive(connection: sa.Connection) -> None:
    """Record that a loss was acknowledged: the next newer head is no second finding."""
    connection.execute(forgiven.insert().prefix_with("OR REPLACE").values(only=1))


def acknowledge(ledger: Ledger, reason: str) -> None:
    """Serve again from an old copy, or under a clock that was set back, because a steward says so.

    Raise ConfigError without a reason, or where nothing is to be acknowledged.
    """
    words = checked_reason(reason)
    now = int(time.time())
    with ledger.transaction() as connection:
        old = connection.execute(sa.select(behind)).first()
        latest = connection.execute(_LATEST).scalar()
        late = latest is not None and now < latest - CLOCK_SLACK_S
        if old is None and not late:
            raise ConfigError("there is nothing to acknowledge: this ledger is served as it is")
        if old is not None:
            connection.execute(file.PUT_HEAD, {"only": 1, "size": old.size, "root": old.root})
            connection.execute(behind.delete())
            record(connection, f"an old copy of the ledger was put back; acknowledged by a steward: {words}")
        if late:
            connection.execute(_PUT_LATEST, {"only": 1, "latest": now})
            record(connection, f"the clock was set back; acknowledged by a steward: {words}")


# --- time --------------------------------------------------------------------------------------------------------


def check_clock(connection: sa.Connection, now: int) -> None:
    """Raise ClockError where the clock is behind what the ledger has seen: days and expiry could not be judged."""
    latest = connection.execute(_LATEST).scalar()
    if latest is not None and now < latest - CLOCK_SLACK_S:
        raise ClockError(
            "the clock of this institution's machine was set back",
            hint="its steward sets it by NTP, or runs: cohortium-agent ledger DIR --acknowledge 'REASON'",
        )
    if latest is None or now > latest:
        connection.execute(_PUT_LATEST, {"only": 1, "latest": now})


def check_rate(connection: sa.Connection, dataset: str, analyst: str, per_day: int | None, now: int) -> None:
    """Raise PolicyDenied where the analyst had all the answers on a dataset that 24 hours allow."""
    if per_day is None:
        return
    columns = request.c
    one = sa.func.coalesce(job_request.c.job, columns.id)  # all rounds of a job are one question
    recent = (
        sa.select(sa.func.count(sa.distinct(one)))
        .select_from(request.outerjoin(job_request, job_request.c.request == columns.id))
        .where(
            columns.dataset == dataset,
            columns.analyst == analyst,
            columns.state != "released",
            columns.at > now - DAY_S,
        )
    )
    if connection.execute(recent).scalar_one() >= per_day:
        raise PolicyDenied(
            f"at most {per_day} {'query' if per_day == 1 else 'queries'} of {dataset!r} a day are answered",
            rule="per-day",
            hint="ask again tomorrow",
        )


# --- renewals ----------------------------------------------------------------------------------------------------


def renew(ledger: Ledger, dataset: str, analyst: str | None, reason: str) -> tuple[str, ...]:
    """Begin a new budget period: take what was charged so far off an analyst's account, or off all of a dataset's.

    What is reserved now stays. The history keeps every request. Return the analysts whose accounts were renewed, TOTAL
    for all together. Raise ConfigError without a reason, or where there is nothing to renew.
    """
    words = checked_reason(reason)
    with ledger.transaction() as connection:
        accounts = sa.select(account).where(account.c.dataset == dataset)
        if analyst is not None:
            accounts = accounts.where(account.c.analyst == analyst)
        renewed = []
        for row in connection.execute(accounts.order_by(account.c.analyst)).all():
            kept, kept_rho = _held(connection, dataset, row.analyst)
            spent = load(row.spent)
            off, off_rho = spent - kept, row.rho_nano - kept_rho
            if not any(off.nano):
                continue
            connection.execute(
                renewal.insert().values(
                    at=int(time.time()), dataset=dataset, analyst=row.analyst, cost=dump(off), rho_nano=off_rho,
                    reason=words,
                )
            )  # fmt: skip
            mine = account.c.dataset == dataset, account.c.analyst == row.analyst
            connection.execute(account.update().where(*mine).values(spent=dump(kept), rho_nano=kept_rho))
            renewed.append(row.analyst)
        if not renewed:
            who = f"analyst {analyst!r} on" if analyst is not None else "any analyst on"
            raise ConfigError(f"there is nothing to renew: nothing is charged to {who} dataset {dataset!r}")
        whose = "all analysts" if analyst is None else f"analyst {analyst}"
        record(connection, f"the budget of {whose} for dataset {dataset} was renewed by a steward: {words}")
    return tuple(renewed)


def _held(connection: sa.Connection, dataset: str, owner: str) -> tuple[Curve, int]:
    """Return what is reserved now, by requests and running jobs: it may still come back to the account."""
    mine, jobs = request.c, job.c
    paid_apart = mine.id.not_in(file.ROUNDS_OF_RUNNING_JOBS)
    requests = sa.select(mine.cost, mine.rho_nano).where(mine.dataset == dataset, mine.state == "reserved", paid_apart)
    running = sa.select(jobs.cost, jobs.rho_nano).where(jobs.dataset == dataset, jobs.ended == 0)
    if owner != TOTAL:
        requests, running = requests.where(mine.analyst == owner), running.where(jobs.analyst == owner)
    total, rho_nano = Curve.zero(), 0
    for row in (*connection.execute(requests), *connection.execute(running)):
        total, rho_nano = total + load(row.cost), rho_nano + row.rho_nano
    return total, rho_nano

"""The agent's ledger: what was spent of whose budget, which requests and rounds were served, and the witnessed head.

One SQLite file (WAL, synchronous=FULL). Every method that changes something is one transaction, durable when it
returns. A request goes from reserved to charged or to released:

    reserve()   JOIN may be sent: budget set aside, round id used up, witnessed head advanced
    upload()    the masked vector may be sent: the charge is final, no other round of this request can follow
    reveal()    REVEAL may be sent, once
    release()   the round is over: what was reserved but never uploaded returns to the budget

The charge falls due at upload and not at REVEAL because the other institutions' shares open a sum that holds this
one's vector whether or not it ever answers again. Must not know: queries, data, the network, how a cost is computed.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import sqlalchemy as sa

from analytics_client.agent import approvals
from analytics_client.agent import ledger_care as care
from analytics_client.agent import ledger_file as file
from analytics_client.agent import ledger_jobs as jobs
from analytics_client.agent.grants import Limits
from analytics_client.agent.ledger_accounts import Account, Cost, accounts, spend, spent_by, unspend
from analytics_client.agent.ledger_file import TOTAL, dump, load, note, request, round_
from analytics_client.agent.ledger_jobs import JobEntry, JobHold
from queries.accounting import Curve
from queries.errors import ConfigError, LogError, ProtocolViolation, RoundError

State = Literal["reserved", "charged", "released"]


@dataclass(frozen=True, slots=True)
class Reservation:
    """What the analyst had spent or reserved of the dataset before and after a reservation, as rho in units of 1e-9.

    `used` is the part, 0 to 1, of the tighter of the two budgets that is spent or reserved after it; `left` what the
    analyst and `left_all` what all analysts together could still spend on statistics.
    """

    rho_nano_before: int
    rho_nano_after: int
    used: float = field(default=0.0, compare=False)
    left: int = field(default=0, compare=False)
    left_all: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """One request in the ledger's history. `at` is unix seconds of its last change, `cost` what it was admitted for."""

    request_id: bytes
    dataset: str
    analyst: str
    state: State
    cost: Curve
    rho_nano: int
    at: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Note:
    """Something a steward decided about the ledger itself; `at` in unix seconds."""

    at: int
    text: str


class Ledger:
    """An open ledger; safe to use from many threads, and from several processes at once."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        """See `open` and `read`, which say what they are for."""
        self._path = path
        self._engine = file.attach(path, create=create)
        self._writer = threading.Lock()  # threads queue here; SQLite's own waiting is by sleeping
        self._file = _inode(path)
        self._presence = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the ledger at `path` for serving, creating it in a folder that never had one.

        What a process that is gone had reserved is released: a vector that was sent would stand as uploaded. Raise
        ConfigError where the ledger is missing, replaced, damaged or does not add up: then nothing may be served.
        """
        ledger = cls(path)
        try:
            care.refuse_if_behind(ledger)
            try:
                fcntl.flock(ledger._presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # another process serves from this ledger: its reservations are alive
            else:
                ledger._recover()
            fcntl.flock(ledger._presence, fcntl.LOCK_SH)
        except BaseException:
            ledger.close()
            raise
        return ledger

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open an existing ledger only to look at it, also beside a running agent. Raise ConfigError as `open`."""
        return cls(path, create=False)

    @classmethod
    def acknowledge_loss(cls, path: Path, reason: str) -> Self:
        """Start an empty ledger after the old one was lost, and record the steward's reason in it.

        What is left of the old file is kept beside it. Raise ConfigError without a reason, or when nothing is lost.
        """
        if not reason.strip():
            raise ConfigError("a lost ledger is acknowledged with a reason", hint="say in a few words what happened")
        try:
            cls.read(path).close()
        except ConfigError as error:
            found = error.message
        else:
            raise ConfigError("this ledger is whole: there is no loss to acknowledge")
        at = int(time.time())
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(path.with_name(f"{path.name}.lost-{at}{suffix}"))
        path.with_name(file.MARKER).unlink(missing_ok=True)
        ledger = cls.open(path)
        with ledger.transaction() as connection:
            care.record(connection, f"{found}; acknowledged by a steward: {reason.strip()}")
            care.forgive(connection)
        return ledger

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()
        os.close(self._presence)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reserve(
        self,
        *,
        request_id: bytes,
        digest: bytes,
        dataset: str,
        analyst: str,
        charge: Curve,
        rho_nano: int,
        budgets: Limits,
        round_id: bytes,
        head: tuple[int, bytes] | None = None,
        job: JobHold | None = None,
        approval: bytes | None = None,
    ) -> Reservation:
        """Set the cost of a request aside for one round; with `head` (size, root) advance the witnessed log head too.

        With `job` the request is one of its rounds: the first one sets the whole job's cost aside, the others are paid
        by that, and the reservation is the job's. Raise RoundError where the job has ended or all its rounds are used.
        A further round of a request ends its earlier one and is paid by the same reservation. Raise BudgetError where
        it is not affordable, ProtocolViolation for a used round id or another request under a known id, RoundError
        for a request that was already answered, LogError for a head that does not extend the witnessed one,
        PolicyDenied beyond the requests of a day, ClockError where the clock was set back. `approval` names the
        question whose approval this uses up.
        """
        if analyst == TOTAL:
            raise ValueError("an analyst has a name")
        with self.transaction() as connection:
            if connection.execute(file.FIND_ROUND, {"round_id": round_id}).first():
                raise ProtocolViolation("this round id was used before", party="coordinator")
            known = connection.execute(file.FIND_REQUEST, {"request_id": request_id}).first()
            asked = {
                "digest": digest, "dataset": dataset, "analyst": analyst, "cost": dump(charge), "rho_nano": rho_nano,
            }  # fmt: skip
            if known is not None:
                _refuse_repetition(known, asked)
            care.check_clock(connection, int(time.time()))
            before = spent_by(connection, dataset, analyst).rho_nano
            again = known is not None and known.state != "released"
            cost = Cost(charge, rho_nano) if job is None else Cost(job.charge, job.rho_nano)
            if again if job is None else jobs.known(connection, job, dataset, analyst):
                before -= cost.rho_nano
            else:
                care.check_rate(connection, dataset, analyst, budgets.per_day, int(time.time()))
                if approval is not None:
                    approvals.use(connection, approval, request_id if job is None else job.id)
                spend(connection, dataset, analyst, cost, budgets)
                if job is not None:
                    jobs.add(connection, job, dataset, analyst)
            if head is not None:
                _advance(connection, *head)
            if job is not None and not again:
                jobs.check_slot(connection, job)
            if known is None:
                added = {"id": request_id, "state": "reserved", "at": int(time.time()), **asked}
                connection.execute(file.ADD_REQUEST, added)
                if job is not None:
                    jobs.link(connection, job, request_id)
            else:
                _set_state(connection, request_id, "reserved")
                connection.execute(file.END_ROUNDS, {"request_id": request_id})
            connection.execute(file.ADD_ROUND, {"id": round_id, "request": request_id, "state": "reserved"})
            mine, whole = spent_by(connection, dataset, analyst).curve, spent_by(connection, dataset, TOTAL).curve
            used = max(budgets.total.used(whole), budgets.analyst.used(mine))
            left = budgets.analyst.left(mine), budgets.total.left(whole)
        return Reservation(before, before + cost.rho_nano, used, *left)

    def upload(self, request_id: bytes, round_id: bytes) -> None:
        """Make the charge final. Call before the first chunk of the masked vector leaves.

        Raise RoundError unless this round holds the request's reservation.
        """
        with self.transaction() as connection:
            _move(connection, request_id, round_id, "reserved", "uploaded")
            _set_state(connection, request_id, "charged")

    def reveal(self, request_id: bytes, round_id: bytes) -> None:
        """Record that REVEAL of this round is sent. Call before sending it. Raise RoundError unless it is due, once."""
        with self.transaction() as connection:
            _move(connection, request_id, round_id, "uploaded", "revealed")

    def release(self, request_id: bytes, round_id: bytes) -> None:
        """End a round. A reservation returns to the budget; what was uploaded stays charged. May be called again."""
        with self.transaction() as connection:
            if _moved(connection, request_id, round_id, "reserved", "released"):
                _give_back(connection, request_id)

    def end_job(self, job_id: bytes, reason: str) -> bool:
        """End a job: no round of it can follow, what it did not use returns. Return whether there was one to end."""
        with self.transaction() as connection:
            return _end_job(connection, job_id, reason)

    def stop_job(self, digits: str, reason: str) -> JobEntry:
        """End the running job whose id begins with `digits`, because a steward says so; the consortium's log tells why.

        No further round of it is answered here, and what it did not use returns. Raise ConfigError where there is no
        such job, or no reason of one line.
        """
        words = care.checked_reason(reason)
        with self.transaction() as connection:
            found = jobs.begins_with(connection, digits)
            if len(found) != 1:
                raise ConfigError(
                    f"{'no running job' if not found else 'more than one running job'} begins with {digits[:64]!r}",
                    hint="cohortium-agent jobs DIR lists them",
                )
            row = found[0]
            _end_job(connection, row.id, f"{jobs.STOPPED}: {words}")
            text = f"job {row.id.hex()[:12]} of {row.analyst} on {row.dataset} was {jobs.STOPPED}: {words}"
            care.state(connection, text, about="job", subject=row.id)
            return next(entry for entry in jobs.entries(connection) if entry.id == row.id)

    def end_expired_jobs(self) -> None:
        """End the jobs whose time is over."""
        with self.transaction() as connection:
            for job_id in jobs.expired(connection, int(time.time())):
                _end_job(connection, job_id, "it expired")

    def jobs(self) -> tuple[JobEntry, ...]:
        """Return every training job, those that run first."""
        with self.transaction(write=False) as connection:
            return jobs.entries(connection)

    def head(self) -> tuple[int, bytes]:
        """Size and root of the newest log head this agent has witnessed; (0, b"") before the first."""
        with self.transaction(write=False) as connection:
            row = connection.execute(file.FIND_HEAD).first()
        return (0, b"") if row is None else (row.size, row.root)

    def set_head(self, size: int, root: bytes) -> None:
        """Persist a head verified to extend the last one, before it is cosigned. Raise LogError going back."""
        with self.transaction() as connection:
            _advance(connection, size, root)

    def accounts(self) -> tuple[Account, ...]:
        """Return every account that was ever drawn on, datasets' totals before their analysts."""
        with self.transaction(write=False) as connection:
            return accounts(connection)

    def history(self, limit: int = 100) -> tuple[Entry, ...]:
        """Return the most recently changed requests, newest first."""
        rounds = sa.select(sa.func.count()).where(round_.c.request == request.c.id).scalar_subquery().label("rounds")
        newest = sa.select(request, rounds).order_by(request.c.change.desc()).limit(limit)
        with self.transaction(write=False) as connection:
            rows = connection.execute(newest).all()
        return tuple(Entry(r.id, r.dataset, r.analyst, r.state, load(r.cost), r.rho_nano, r.at, r.rounds) for r in rows)

    def notes(self) -> tuple[Note, ...]:
        """Return what stewards decided about this ledger, oldest first."""
        with self.transaction(write=False) as connection:
            rows = connection.execute(sa.select(note.c.at, note.c.text).order_by(note.c.number)).all()
        return tuple(Note(row.at, row.text) for row in rows)

    def _recover(self) -> None:
        with self.transaction() as connection:
            left = connection.execute(sa.select(request.c.id).where(request.c.state == "reserved")).scalars().all()
            for request_id in left:
                connection.execute(file.END_ROUNDS, {"request_id": request_id})
                _give_back(connection, request_id)
            for job_id in jobs.expired(connection, int(time.time())):
                _end_job(connection, job_id, "it expired")

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[sa.Connection]:
        """Run one transaction, also for the modules beside this one.

        Raise ConfigError where the file is not the one that was opened, or cannot be used.
        """
        if _inode(self._path) != self._file:
            raise ConfigError(
                "this agent's ledger was removed or replaced while it was open: nothing is served",
                hint="put the file back and restart the agent",
            )
        if not write:
            with file.failures(), self._engine.connect().execution_options(ledger_begin="DEFERRED") as connection:
                yield connection
            return
        with self._writer, file.failures(), self._engine.begin() as connection:
            yield connection


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _set_state(connection: sa.Connection, request_id: bytes, state: State) -> None:
    moved = {"request_id": request_id, "after": state, "now": int(time.time())}
    connection.execute(file.MOVE_REQUEST, moved)


def _refuse_repetition(known: sa.Row[Any], asked: Mapping[str, object]) -> None:
    if any(getattr(known, field) != value for field, value in asked.items()):
        raise ProtocolViolation("another request was seen under this request id", party="coordinator")
    if known.state == "charged":
        raise RoundError("this request was already answered here", hint="sign a new request; it is charged anew")


def _give_back(connection: sa.Connection, request_id: bytes) -> None:
    row = connection.execute(file.FIND_REQUEST, {"request_id": request_id}).one()
    if not jobs.pays_for(connection, request_id):
        unspend(connection, row.dataset, row.analyst, Cost(load(row.cost), row.rho_nano))
    _set_state(connection, request_id, "released")


def _end_job(connection: sa.Connection, job_id: bytes, reason: str) -> bool:
    ended = jobs.end(connection, job_id, reason)
    if ended is None:
        return False
    row, curve, rho_nano = ended
    unspend(connection, row.dataset, row.analyst, Cost(curve, rho_nano))
    return True


def _moved(connection: sa.Connection, request_id: bytes, round_id: bytes, before: str, after: str) -> bool:
    move = {"round_id": round_id, "request_id": request_id, "before": before, "after": after}
    return connection.execute(file.MOVE_ROUND, move).rowcount == 1


def _move(connection: sa.Connection, request_id: bytes, round_id: bytes, before: str, after: str) -> None:
    if not _moved(connection, request_id, round_id, before, after):
        raise RoundError(f"this round cannot become {after}: it is not {before}", hint="a new round is needed")


def _advance(connection: sa.Connection, size: int, root: bytes) -> None:
    last = connection.execute(file.FIND_HEAD).first()
    if last is not None and (size < last.size or (size == last.size and root != last.root)):
        raise LogError(
            "this log head does not extend the one this agent has witnessed",
            hint="the coordinator's log was rewound or forked: tell the consortium's auditors",
        )
    connection.execute(file.PUT_HEAD, {"only": 1, "size": size, "root": root})

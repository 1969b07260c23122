"""Requests and their outcome: the part of a unit of work that survives a crash in the middle of a round.

Must not know: what a request asks. Envelope, release and failure are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from analytics_server.store import tables as t
from analytics_server.store.instance import is_dead
from analytics_server.store.rows import RequestRow, State
from queries.errors import ServiceError, SignatureError


class Requests:
    """Methods of `UnitOfWork`; see there."""

    _connection: Connection

    def add_request(
        self, *, request_id: bytes, analyst: str, dataset: str, envelope: bytes, expires_at: int, instance: int = 0
    ) -> None:
        """Record a request as running in the process of this number, 0 for none that lives.

        Raise SignatureError on one seen before: a signed request is good once.
        """
        try:
            with self._connection.begin_nested():
                self._connection.execute(
                    insert(t.request).values(
                        request_id=request_id,
                        analyst=analyst,
                        dataset=dataset,
                        envelope=envelope,
                        expires_at=expires_at,
                        state="running",
                        instance=instance,
                    )
                )
        except IntegrityError as error:
            raise SignatureError("this request was submitted before", hint="sign a new one") from error

    def request(self, request_id: bytes) -> RequestRow | None:
        """Return a request with the sequence numbers of its log entries."""
        row = self._connection.execute(select(t.request).where(t.request.c.request_id == request_id)).one_or_none()
        return None if row is None else self._row(row)

    def running_requests(self) -> list[RequestRow]:
        """Return the requests that have not ended."""
        rows = self._connection.execute(
            select(t.request).where(t.request.c.state == "running").order_by(t.request.c.request_id)
        )
        return [self._row(row) for row in rows.all()]

    def orphaned_requests(self, instance: int) -> list[RequestRow]:
        """Return what is left running by processes that are dead, for the process of this number to see to."""
        running = self.running_requests()
        others = {row.instance for row in running} - {instance}
        dead = {other for other in sorted(others) if is_dead(self._connection, other)}
        return [row for row in running if row.instance in dead]

    def check_runs(self, request_id: bytes, instance: int) -> None:
        """Raise ServiceError unless a request runs in the process of this number: it was silent, others went on."""
        row = self.request(request_id)
        if row is None or row.state != "running" or row.instance != instance:
            raise ServiceError(
                f"request {request_id.hex()[:12]} does not run here any more",
                hint="this coordinator was silent for too long, so another one has seen to it",
            )

    def adopt_request(self, request_id: bytes, instance: int) -> None:
        """Have the process of this number run a request. Raise ServiceError where it is not running."""
        adopted = self._connection.execute(
            update(t.request)
            .where(t.request.c.request_id == request_id, t.request.c.state == "running")
            .values(instance=instance)
        )
        if adopted.rowcount != 1:
            raise ServiceError(f"request {request_id.hex()[:12]} is not running, so nobody can go on with it")

    def all_requests(self) -> Iterator[RequestRow]:
        """Give every request there ever was, without its log entries."""
        for row in self._connection.execute(select(t.request).execution_options(yield_per=1000)):
            yield _whole(row, ())

    def finish_request(
        self, request_id: bytes, state: State, release: bytes | None = None, failure: bytes | None = None
    ) -> None:
        """End a running request, once. Raise ServiceError where it is not running."""
        done = self._connection.execute(
            update(t.request)
            .where(t.request.c.request_id == request_id, t.request.c.state == "running")
            .values(state=state, release=release, failure=failure)
        )
        if done.rowcount != 1:
            raise ServiceError(f"request {request_id.hex()[:12]} is not running, so it cannot end")

    def requests_of(self, analyst: str) -> list[RequestRow]:
        """Return an analyst's requests in no particular order."""
        rows = self._connection.execute(select(t.request).where(t.request.c.analyst == analyst))
        return [self._row(row) for row in rows.all()]

    def ended_unexpired(self, now: int) -> list[tuple[bytes, bytes]]:
        """Return id and envelope of every request that has ended and does not expire before `now` (unix seconds)."""
        row = t.request.c
        ended = select(row.request_id, row.envelope).where(row.state != "running", row.expires_at >= now)
        return [(found.request_id, found.envelope) for found in self._connection.execute(ended)]

    def add_job_round(self, request_id: bytes, progress: bytes) -> None:
        """Keep what a round of a running job released, after those before it."""
        before = select(func.count()).where(t.job_round.c.request_id == request_id)
        number = self._connection.execute(before).scalar_one()
        row = {"request_id": request_id, "number": number, "progress": progress}
        self._connection.execute(insert(t.job_round).values(**row))

    def job_rounds(self, request_id: bytes) -> list[bytes]:
        """Return what a job's rounds released, in their order."""
        rounds = select(t.job_round.c.progress).where(t.job_round.c.request_id == request_id)
        return list(self._connection.execute(rounds.order_by(t.job_round.c.number)).scalars())

    def _row(self, row: Row[Any]) -> RequestRow:
        index = t.audit_index.c
        seqs = self._connection.execute(
            select(index.seq).where(index.request_id == row.request_id.hex()).order_by(index.seq)
        ).scalars()
        return _whole(row, tuple(seqs))


def _whole(row: Row[Any], seqs: tuple[int, ...]) -> RequestRow:
    return RequestRow(
        row.request_id,
        row.analyst,
        row.dataset,
        row.envelope,
        row.expires_at,
        row.state,
        row.release,
        row.failure,
        seqs,
        row.instance,
    )

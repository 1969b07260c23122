"""The queue of questions that a steward must approve before they are answered.

A question is what an analyst signs less its nonce and times: asked again later, it is the same question. An approval
serves one answer and expires; a question that waits costs nothing. Must not know: queries, data, the network.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import sqlalchemy as sa

from analytics_client.agent import ledger_care as care
from analytics_client.agent.ledger_file import job, metadata, request
from queries.errors import AwaitingApproval, ConfigError, PolicyDenied

if TYPE_CHECKING:
    from analytics_client.agent.ledger import Ledger

WAITS_S = 14 * care.DAY_S
"""How long a question waits for the steward."""
HOLDS_S = 7 * care.DAY_S
"""How long an approval can be used, and a denial stands."""
MAX_WAITING = 20
"""Questions of one analyst that may wait at a time: the steward's patience is no free resource."""
State = Literal["waiting", "approved", "denied"]

approval = sa.Table(
    "approval",
    metadata,
    sa.Column("question", sa.LargeBinary, primary_key=True),
    sa.Column("analyst", sa.Text, nullable=False),
    sa.Column("dataset", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("shape", sa.Text, nullable=False),  # operations and columns
    sa.Column("rho_nano", sa.Integer, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("state", sa.Text, sa.CheckConstraint("state IN ('waiting', 'approved', 'denied')"), nullable=False),
    sa.Column("at", sa.Integer, nullable=False),  # unix seconds of the last change
    sa.Column("expires_at", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("used_by", sa.LargeBinary),  # the request that an approval was used for
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question in the queue. `id` is its digest; times are unix seconds."""

    id: bytes
    analyst: str
    dataset: str
    purpose: str
    shape: str
    rho_nano: int
    rule: str
    state: State = "waiting"
    at: int = 0
    expires_at: int = 0
    reason: str = ""

    @property
    def name(self) -> str:
        """What people call it: enough of its digest."""
        return self.id.hex()[:12]


def require(ledger: Ledger, question: Question, request_id: bytes) -> None:
    """Return where the question is approved and the approval is free for this request.

    Else put it into the queue, where it is not yet, and raise AwaitingApproval; raise PolicyDenied where a steward has
    denied it. `use` takes the approval, in the transaction that reserves. A job's rounds all have the job's id here.
    """
    now = int(time.time())
    with ledger.transaction() as connection:
        row = _find(connection, question.id)
        if row is not None and row.state == "approved" and row.used_by == request_id:
            return  # a further round of what was approved
        if row is not None and row.expires_at >= now:
            if row.state == "denied":
                why = f": {row.reason}" if row.reason else ""
                raise PolicyDenied(f"a steward denied this question{why}", rule=row.rule, hint="ask the institution")
            if row.state == "approved" and _is_free(connection, row, request_id):
                return
        if row is None or row.expires_at < now or row.state != "waiting":
            _put(connection, question, now)
    raise AwaitingApproval(
        "a steward has to approve this question first",
        rule=question.rule,
        hint="ask the same again once it is approved; nothing is spent meanwhile",
    )


def use(connection: sa.Connection, question: bytes, request_id: bytes) -> None:
    """Use an approval up for a request. Raise AwaitingApproval where it was withdrawn or taken meanwhile."""
    row = _find(connection, question)
    fresh = row is not None and row.state == "approved" and row.expires_at >= int(time.time())
    if row is None or not fresh or not _is_free(connection, row, request_id):
        raise AwaitingApproval("this question is no longer approved", rule="approval", hint="ask the same again")
    connection.execute(approval.update().where(approval.c.question == question).values(used_by=request_id))


def queue(ledger: Ledger, *, all_states: bool = False) -> tuple[Question, ...]:
    """Return the questions that wait, oldest first; with `all_states` also those that were decided."""
    now = int(time.time())
    wanted = sa.select(approval).order_by(approval.c.at)
    if not all_states:
        wanted = wanted.where(approval.c.state == "waiting", approval.c.expires_at >= now)
    with ledger.transaction(write=False) as connection:
        if not sa.inspect(connection).has_table(approval.name):
            return ()
        rows = connection.execute(wanted).all()
    return tuple(_question(row) for row in rows)


def decide(ledger: Ledger, name: str, *, approve: bool, reason: str) -> Question:
    """Approve or deny the waiting question whose digest begins with `name`, and record why.

    An approval may be withdrawn by a denial while it is unused. Raise ConfigError where there is no such question.
    """
    words = care.checked_reason(reason)
    now = int(time.time())
    with ledger.transaction() as connection:
        open_ = sa.select(approval).where(approval.c.expires_at >= now, approval.c.used_by.is_(None))
        rows = [r for r in connection.execute(open_) if r.question.hex().startswith(name.lower())] if name else []
        if len(rows) != 1:
            raise ConfigError(
                f"{'no question' if not rows else 'more than one question'} that can be decided begins with {name!r}",
                hint="cohortium-agent requests DIR lists them",
            )
        after: State = "approved" if approve else "denied"
        values = {"state": after, "at": now, "expires_at": now + HOLDS_S, "reason": words}
        connection.execute(approval.update().where(approval.c.question == rows[0].question).values(**values))
        row = _find(connection, rows[0].question)
        found = _question(row)
        text = f"question {found.name} of {found.analyst} on {found.dataset} was {after} by a steward: {words}"
        care.state(connection, text, about="approval", subject=found.id)
    return found


def _put(connection: sa.Connection, question: Question, now: int) -> None:
    columns = approval.c
    waiting = sa.select(sa.func.count()).where(
        columns.analyst == question.analyst,
        columns.state == "waiting",
        columns.expires_at >= now,
        columns.question != question.id,
    )
    if connection.execute(waiting).scalar_one() >= MAX_WAITING:
        raise PolicyDenied(
            "too many of this analyst's questions wait for approval",
            rule=question.rule,
            hint="wait until some are decided",
        )
    connection.execute(approval.delete().where(columns.expires_at < now - HOLDS_S))
    connection.execute(
        approval.insert()
        .prefix_with("OR REPLACE")
        .values(
            question=question.id, analyst=question.analyst, dataset=question.dataset, purpose=question.purpose,
            shape=question.shape, rho_nano=question.rho_nano, rule=question.rule, state="waiting", at=now,
            expires_at=now + WAITS_S, reason="", used_by=None,
        )
    )  # fmt: skip


def _find(connection: sa.Connection, question: bytes) -> sa.Row[tuple[object, ...]] | None:
    return connection.execute(sa.select(approval).where(approval.c.question == question)).first()


def _is_free(connection: sa.Connection, row: sa.Row[tuple[object, ...]], request_id: bytes) -> bool:
    """An approval is free until a request that used it is answered; what was released did not use it."""
    used_by = row._mapping["used_by"]
    if used_by is None or used_by == request_id:
        return True
    if connection.execute(sa.select(job.c.id).where(job.c.id == used_by)).first() is not None:
        return False
    state = connection.execute(sa.select(request.c.state).where(request.c.id == used_by)).scalar()
    return state in (None, "released")


def _question(row: sa.Row[tuple[object, ...]] | None) -> Question:
    if row is None:
        raise ConfigError("the question is gone", hint="cohortium-agent requests DIR lists them")
    fields = dict(row._mapping)
    fields.pop("used_by")
    return Question(id=fields.pop("question"), **fields)

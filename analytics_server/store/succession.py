"""Identity keys that replace each other: the part of a unit of work about who signs with what from the next epoch on.

Must not know: what makes a change valid. Callers verify; this keeps.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from analytics_server.store import tables as t
from analytics_server.store.rows import KeyChangeRow
from queries.errors import IdentityError


class Succession:
    """Methods of `UnitOfWork`; see there."""

    _connection: Connection

    def add_key_change(
        self,
        participant: str,
        *,
        old_key: bytes,
        new_key: bytes,
        epoch_key: bytes = b"",
        epoch_key_signature: bytes = b"",
        old_signature: bytes = b"",
        reason: str = "",
    ) -> None:
        """Have the next membership give the participant another key; an earlier one that is pending is withdrawn.

        Raise IdentityError where the new key is, or ever was, anybody's.
        """
        self.withdraw_key_change(participant)
        number = self._connection.execute(
            select(func.coalesce(func.max(t.key_change.c.number), 0)).where(t.key_change.c.participant == participant)
        ).scalar_one()
        held = select(t.participant.c.id).where(t.participant.c.identity_key == new_key)
        given_up = select(t.key_change.c.participant).where(t.key_change.c.old_key == new_key)
        try:
            if self._connection.execute(held.union_all(given_up)).first() is not None:
                raise IdentityError("this identity key is, or was, somebody's", hint="make a new one")
            with self._connection.begin_nested():
                self._connection.execute(
                    insert(t.key_change).values(
                        participant=participant,
                        number=number + 1,
                        old_key=old_key,
                        new_key=new_key,
                        epoch_key=epoch_key,
                        epoch_key_signature=epoch_key_signature,
                        old_signature=old_signature,
                        reason=reason,
                        state="pending",
                    )
                )
        except IntegrityError as error:
            raise IdentityError("this identity key was named before", hint="make a new one") from error

    def pending_key_changes(self) -> dict[str, KeyChangeRow]:
        """Return, by participant, the changes that the next membership takes up."""
        rows = self._connection.execute(select(t.key_change).where(t.key_change.c.state == "pending"))
        return {row.participant: _change(row) for row in rows}

    def withdraw_key_change(self, participant: str) -> None:
        """Have the next membership not take up what is pending for the participant, if anything is."""
        self._connection.execute(
            update(t.key_change)
            .where(t.key_change.c.participant == participant, t.key_change.c.state == "pending")
            .values(state="withdrawn")
        )

    def apply_key_change(self, participant: str, new_key: bytes) -> None:
        """Give the participant the key that a membership lists now. Raise IdentityError where nobody asked for it."""
        row = self._connection.execute(
            select(t.key_change).where(
                t.key_change.c.participant == participant,
                t.key_change.c.new_key == new_key,
                t.key_change.c.state == "pending",
            )
        ).one_or_none()
        if row is None:
            raise IdentityError(
                f"the key that this membership gives {participant!r} was not asked for, or withdrawn",
                hint="propose the next membership again, and have it signed",
            )
        self._connection.execute(
            update(t.key_change)
            .where(t.key_change.c.participant == participant, t.key_change.c.number == row.number)
            .values(state="published")
        )
        self._connection.execute(
            update(t.participant)
            .where(t.participant.c.id == participant)
            .values(identity_key=new_key, epoch_key=row.epoch_key, epoch_key_signature=row.epoch_key_signature)
        )

    def restore_participant(self, participant: str, tls_key: str) -> None:
        """Let someone in again, over TLS with this key alone (SHA-256 of it, hex)."""
        self._connection.execute(
            update(t.participant).where(t.participant.c.id == participant).values(revoked=0, tls_key=tls_key)
        )


def _change(row: Row[Any]) -> KeyChangeRow:
    return KeyChangeRow(
        row.participant,
        row.number,
        row.old_key,
        row.new_key,
        row.epoch_key,
        row.epoch_key_signature,
        row.old_signature,
        row.reason,
        row.state,
    )

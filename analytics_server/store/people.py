"""Invitations, participants, memberships and datasets: the part of a unit of work about who and what there is.

Must not know: what makes an envelope valid. Callers verify; this keeps.
"""

# ruff: noqa: A002 - "id" and "hash" are what the tables, the wire and the callers call these
from __future__ import annotations

import hmac
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from analytics_server.store import tables as t
from analytics_server.store.rows import DatasetRow, IdentityRow, InvitationRow, ParticipantRow
from queries.errors import IdentityError, InvitationError

_ABSENT = bytes(32)


class People:
    """Methods of `UnitOfWork`; see there."""

    _connection: Connection

    def add_invitation(
        self,
        *,
        id: str,
        secret_hash: bytes,
        role: str,
        participant: str,
        organisation: str,
        expires_at: int,
        recovery_reason: str = "",
        service: str = "",
        person: str = "",
    ) -> None:
        """Record an invitation. `secret_hash` is a hash: the store never sees the secret."""
        self._connection.execute(
            insert(t.invitation).values(
                id=id,
                secret_hash=secret_hash,
                role=role,
                participant=participant,
                organisation=organisation,
                expires_at=expires_at,
                recovery_reason=recovery_reason,
                service=service,
                person=person,
            )
        )

    def redeem_invitation(self, id: str, secret_hash: bytes, now: int) -> InvitationRow:
        """Use an invitation up. Raise InvitationError on one that is unknown, expired or used.

        Of two newcomers with one invitation exactly one gets through, also across processes: the single conditional
        UPDATE decides. Whoever lacks the secret learns nothing about the invitation, not even that it exists.
        """
        row = self._connection.execute(select(t.invitation).where(t.invitation.c.id == id)).one_or_none()
        same = hmac.compare_digest(row.secret_hash if row else _ABSENT, secret_hash)
        if row is None or not same:
            raise InvitationError("this invitation is unknown here", hint="check that the whole token was pasted")
        if row.expires_at <= now:
            raise InvitationError("this invitation has expired", hint="ask the operator for a new one")
        used = self._connection.execute(
            update(t.invitation)
            .where(t.invitation.c.id == id, t.invitation.c.redeemed_at.is_(None), t.invitation.c.expires_at > now)
            .values(redeemed_at=now)
        )
        if used.rowcount != 1:
            raise InvitationError(
                "this invitation has been used", hint="if that was not you, tell the operator; ask for a new one"
            )
        return _invitation(row)

    def withdraw_invitations(self, participant: str, now: int) -> None:
        """Have no open invitation for this participant redeemed any more."""
        self._connection.execute(
            update(t.invitation)
            .where(t.invitation.c.participant == participant, t.invitation.c.redeemed_at.is_(None))
            .values(redeemed_at=now)
        )

    def add_participant(
        self,
        *,
        id: str,
        role: str,
        organisation: str,
        identity_key: bytes,
        epoch_key: bytes,
        epoch_key_signature: bytes,
        certificate_serial: str,
        service: str = "",
    ) -> None:
        """Enrol someone. Raise IdentityError where the id or the identity key is taken, also by someone revoked."""
        try:
            with self._connection.begin_nested():
                self._connection.execute(
                    insert(t.participant).values(
                        id=id,
                        role=role,
                        organisation=organisation,
                        identity_key=identity_key,
                        epoch_key=epoch_key,
                        epoch_key_signature=epoch_key_signature,
                        certificate_serial=certificate_serial,
                        service=service,
                    )
                )
        except IntegrityError as error:
            taken = "the name" if self.participant(id) else "the identity key"
            raise IdentityError(
                f"{taken} of {id!r} is already enrolled",
                hint="every participant needs a name and a key of its own: ask the operator for another invitation",
            ) from error

    def participant(self, id: str) -> ParticipantRow | None:
        """Return whoever enrolled under this id."""
        row = self._connection.execute(select(t.participant).where(t.participant.c.id == id)).one_or_none()
        return None if row is None else _participant(row)

    def participants(self) -> list[ParticipantRow]:
        """Return everyone who enrolled, by id, the revoked included."""
        rows = self._connection.execute(select(t.participant).order_by(t.participant.c.id))
        return [_participant(row) for row in rows]

    def revoke_participant(self, id: str) -> None:
        """Revoke someone; again is no error. Raise IdentityError where there is no such participant."""
        done = self._connection.execute(update(t.participant).where(t.participant.c.id == id).values(revoked=1))
        if done.rowcount != 1:
            raise IdentityError(f"there is no participant {id!r}", hint="cohortium-server membership show lists them")

    def scope_service(self, id: str, service: str) -> None:
        """Keep what a service account may do from now on."""
        self._connection.execute(update(t.participant).where(t.participant.c.id == id).values(service=service))

    def identify(self, id: str, name: str, contact: str) -> None:
        """Keep whom an id stands for, replacing what was kept. Raise IdentityError where nobody has enrolled as it."""
        if self.participant(id) is None:
            raise IdentityError(
                f"there is no participant {id!r}", hint="cohortium-server membership pending lists them"
            )
        self._connection.execute(delete(t.identity).where(t.identity.c.id == id))
        self._connection.execute(insert(t.identity).values(id=id, name=name, contact=contact))

    def keep_proof(self, id: str, token: str, at: int) -> None:
        """Keep what an identity provider signed of someone at that unix time, until governance has seen it."""
        self._connection.execute(delete(t.identity_proof).where(t.identity_proof.c.id == id))
        self._connection.execute(insert(t.identity_proof).values(id=id, token=token, at=at))

    def proof(self, id: str) -> tuple[str, int] | None:
        """Return what is kept of someone: the token, and when it was shown."""
        row = self._connection.execute(select(t.identity_proof).where(t.identity_proof.c.id == id)).one_or_none()
        return None if row is None else (row.token, row.at)

    def invitation_of(self, participant: str) -> InvitationRow | None:
        """Return the invitation that a participant redeemed last."""
        row = self._connection.execute(
            select(t.invitation)
            .where(t.invitation.c.participant == participant, t.invitation.c.redeemed_at.is_not(None))
            .order_by(t.invitation.c.redeemed_at.desc(), t.invitation.c.expires_at.desc())
            .limit(1)
        ).one_or_none()
        return None if row is None else _invitation(row)

    def identity(self, id: str) -> IdentityRow | None:
        """Return whom an id stands for, None where nothing is kept."""
        row = self._connection.execute(select(t.identity).where(t.identity.c.id == id)).one_or_none()
        return None if row is None else IdentityRow(row.id, row.name, row.contact)

    def erase_identity(self, id: str) -> None:
        """Forget whom an id stands for. Raise IdentityError where nothing is kept."""
        if self._connection.dialect.name == "sqlite":  # else the name stays in the page's free space
            self._connection.execute(text("PRAGMA secure_delete = ON"))
        self._connection.execute(delete(t.identity_proof).where(t.identity_proof.c.id == id))
        if self._connection.execute(delete(t.identity).where(t.identity.c.id == id)).rowcount != 1:
            raise IdentityError(f"nobody is known behind {id!r}", hint="there is nothing to erase")

    def add_membership(self, epoch: int, hash: bytes, envelope: bytes) -> None:
        """Publish a membership. Raise IdentityError unless its epoch is the next one."""
        latest = self._connection.execute(select(func.max(t.membership.c.epoch))).scalar() or 0
        if epoch != latest + 1:
            raise IdentityError(
                f"epoch {epoch} does not follow epoch {latest}", hint=f"publish epoch {latest + 1} instead"
            )
        self._connection.execute(insert(t.membership).values(epoch=epoch, hash=hash, envelope=envelope))

    def latest_membership(self) -> bytes | None:
        """Return the envelope of the newest epoch."""
        newest: bytes | None = self._connection.execute(
            select(t.membership.c.envelope).order_by(t.membership.c.epoch.desc()).limit(1)
        ).scalar()
        return newest

    def memberships(self) -> list[bytes]:
        """Return every epoch's envelope, oldest first."""
        return list(self._connection.execute(select(t.membership.c.envelope).order_by(t.membership.c.epoch)).scalars())

    def add_dataset(self, name: str, schema_hash: bytes, envelope: bytes) -> None:
        """Publish a dataset description. One of the same name is replaced from now on, and kept as history."""
        version = (self._connection.execute(select(func.max(t.dataset.c.version))).scalar() or 0) + 1
        self._connection.execute(
            insert(t.dataset).values(version=version, name=name, schema_hash=schema_hash, envelope=envelope)
        )

    def datasets(self) -> dict[str, DatasetRow]:
        """Return the description in force of every dataset, by name."""
        newest = select(func.max(t.dataset.c.version)).group_by(t.dataset.c.name)
        rows = self._connection.execute(
            select(t.dataset).where(t.dataset.c.version.in_(newest)).order_by(t.dataset.c.name)
        )
        return {row.name: DatasetRow(row.name, row.schema_hash, row.envelope) for row in rows}

    def dataset_history(self) -> list[DatasetRow]:
        """Return every description that was ever published, oldest first."""
        rows = self._connection.execute(select(t.dataset).order_by(t.dataset.c.version))
        return [DatasetRow(row.name, row.schema_hash, row.envelope) for row in rows]


def _invitation(row: Row[Any]) -> InvitationRow:
    return InvitationRow(
        row.id,
        row.role,
        row.participant,
        row.organisation,
        row.expires_at,
        row.recovery_reason,
        row.service,
        row.person,
    )


def _participant(row: Row[Any]) -> ParticipantRow:
    return ParticipantRow(
        row.id,
        row.role,
        row.organisation,
        row.identity_key,
        row.epoch_key,
        row.epoch_key_signature,
        row.certificate_serial,
        bool(row.revoked),
        row.tls_key,
        row.service,
    )

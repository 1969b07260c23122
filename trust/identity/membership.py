"""The membership document: who belongs to the consortium, with which keys, signed by governance and by nobody else.

Participants pin the governance key and never go back an epoch, so a coordinator cannot invent peers or restore a
revoked one. The document is the only source of rights; TLS certificates merely say who connects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protos.v1 import membership_pb2
from queries.errors import IdentityError, SignatureError
from trust.identity import envelope as dsse
from trust.identity import keys
from trust.identity.activity import Activity, activity_of, check_activities
from trust.identity.council import verify_governed
from trust.identity.names import check_consortium, check_organisation, check_participant
from trust.identity.service import Service, check_service
from trust.identity.succession import KeyChange, check_changes, check_continues, retired_by_rotation
from trust.transcript import digest

PAYLOAD_TYPE = "application/vnd.cohortium.membership.v1+protobuf"
MINIMUM_COHORT = 3
MAX_PARTICIPANTS = 10_000
_ROLES: dict[str, membership_pb2.Role] = {
    "analyst": membership_pb2.ROLE_ANALYST,
    "steward": membership_pb2.ROLE_STEWARD,
    "auditor": membership_pb2.ROLE_AUDITOR,
    "operator": membership_pb2.ROLE_OPERATOR,
}
_ROLE_NAMES: dict[int, str] = {int(number): name for name, number in _ROLES.items()}


@dataclass(frozen=True, slots=True)
class Institution:
    """An agent: its organisation, raw Ed25519 identity key, raw X25519 epoch key signed by the identity key."""

    id: str
    organisation: str
    identity_key: bytes
    epoch_key: bytes
    epoch_key_signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Person:
    """An analyst, steward, auditor or operator; `roles` is sorted. With `service` it is an account of no person."""

    id: str
    roles: tuple[str, ...]
    identity_key: bytes
    service: Service | None = None


@dataclass(frozen=True)
class MembershipDocument:
    """One epoch. `hash` names it in every round; `payload` and `envelope` are the exact bytes it came from."""

    consortium: str
    epoch: int
    previous_hash: bytes
    issued_at: int
    institutions: tuple[Institution, ...]
    people: tuple[Person, ...]
    log_key: bytes
    log_origin: str
    minimum_cohort: int
    colluders: int
    key_changes: tuple[KeyChange, ...]
    valid_until: int
    """Unix seconds, the last at which anybody may act under it; 0 for no end."""
    activities: tuple[Activity, ...]
    hash: bytes
    payload: bytes = field(repr=False)
    envelope: bytes = field(repr=False)
    _institutions: dict[str, Institution] = field(repr=False, compare=False)
    _people: dict[str, Person] = field(repr=False, compare=False)

    def institution(self, participant: str) -> Institution:
        """Return the institution; raise IdentityError where this epoch has none of that id."""
        found = self._institutions.get(participant)
        if found is None:
            raise IdentityError(
                f"{participant[:80]!r} is no institution in epoch {self.epoch}",
                hint="wait for the next membership epoch",
            )
        return found

    def person(self, participant: str) -> Person:
        """Return the person; raise IdentityError where this epoch has none of that id."""
        found = self._people.get(participant)
        if found is None:
            raise IdentityError(
                f"{participant[:80]!r} is nobody in epoch {self.epoch}", hint="wait for the next membership epoch"
            )
        return found

    def find_person(self, participant: str) -> Person | None:
        """Return the person, None where this epoch has none of that id."""
        return self._people.get(participant)

    def keys_of(self, participant: str) -> list[bytes]:
        """Return the identity key in force of an institution, then those that it gave up itself, newest first.

        For what it signed in the past. Raise IdentityError where this epoch has no institution of that id.
        """
        return self.keys_in_use(self.institution(participant).id)

    def keys_in_use(self, participant: str) -> list[bytes]:
        """Return the identity key in force of anybody, and those that it gave up itself; none for who is not here.

        What was begun with one of them may go on; nothing new may begin with an old one.
        """
        now = self.identity_keys.get(participant)
        return [] if now is None else [now, *retired_by_rotation(self.key_changes, participant)]

    def check_age(self, now: int) -> None:
        """Raise IdentityError where the document is past its end: a newer one must be there, or is withheld."""
        if self.valid_until and now > self.valid_until:
            raise IdentityError(
                f"the membership (epoch {self.epoch}) ended {(now - self.valid_until) // 3600} hours ago",
                hint="governance publishes the next one (cohortium-server membership publish); "
                "if it has, the coordinator withholds it: tell your operator",
            )

    def activity(self, purpose: str) -> Activity | None:
        """Return the processing activity that a purpose belongs to, None where it belongs to none."""
        return activity_of(self.activities, purpose)

    @property
    def identity_keys(self) -> dict[str, bytes]:
        """The raw identity key of every participant."""
        return {i.id: i.identity_key for i in self.institutions} | {p.id: p.identity_key for p in self.people}


def build(
    *,
    consortium: str,
    epoch: int,
    previous_hash: bytes,
    issued_at: int,
    institutions: Iterable[Institution],
    people: Iterable[Person],
    log_key: bytes,
    log_origin: str,
    minimum_cohort: int,
    colluders: int,
    key_changes: Iterable[KeyChange] = (),
    valid_until: int = 0,
    activities: Iterable[Activity] = (),
) -> bytes:
    """Return the payload to sign. Raises IdentityError for anything that `verify` would refuse."""
    message = membership_pb2.Membership(
        consortium=consortium,
        epoch=epoch,
        previous_hash=previous_hash,
        issued_at=issued_at,
        log_key=log_key,
        log_origin=log_origin,
        minimum_cohort=minimum_cohort,
        colluders=colluders,
        valid_until=valid_until,
    )
    for institution in sorted(institutions, key=lambda i: i.id):
        message.institutions.add(
            id=institution.id,
            organisation=institution.organisation,
            identity_key=institution.identity_key,
            epoch_key=institution.epoch_key,
            epoch_key_signature=institution.epoch_key_signature,
        )
    for person in sorted(people, key=lambda p: p.id):
        added = message.people.add(
            id=person.id, roles=sorted(_ROLES[role] for role in person.roles), identity_key=person.identity_key
        )
        if person.service is not None:
            added.service.expires_at = person.service.expires_at
            added.service.datasets.extend(person.service.datasets)
    for activity in sorted(activities, key=lambda a: a.name):
        message.activities.add(
            name=activity.name,
            category=activity.category,
            legal_basis=activity.legal_basis,
            purposes=activity.purposes,
        )
    for change in key_changes:
        message.key_changes.add(
            id=change.id,
            epoch=change.epoch,
            old_key=change.old_key,
            new_key=change.new_key,
            old_signature=change.old_signature,
            reason=change.reason,
        )
    payload = message.SerializeToString(deterministic=True)
    _check(_parse(payload, b""))
    return payload


def sign(payload: bytes, governance_key: Ed25519PrivateKey) -> bytes:
    """Return the envelope that participants accept."""
    return dsse.sign(PAYLOAD_TYPE, payload, governance_key)


def verify(
    envelope: bytes,
    governance_key: bytes,
    previous: MembershipDocument | None = None,
    *,
    consortium: str | None = None,
) -> MembershipDocument:
    """Return the document if the pinned governance key signed it and it may follow `previous`, the last one seen.

    The same epoch again is accepted if it is the same document; the next epoch must name it as its predecessor; a later
    one may skip epochs this participant slept through. Raises SignatureError, or IdentityError for a document that goes
    back, forks, names another consortium, or contradicts itself.
    """
    document = _parse(verify_governed(envelope, PAYLOAD_TYPE, governance_key), envelope)
    _check(document)
    expected = previous.consortium if previous is not None else consortium
    if expected is not None and document.consortium != expected:
        raise IdentityError(f"the membership is of consortium {document.consortium!r}, not {expected!r}")
    if previous is None:
        return document
    if document.epoch < previous.epoch:
        raise IdentityError(
            f"the membership goes back from epoch {previous.epoch} to {document.epoch}",
            hint="the coordinator serves an old membership: tell your operator",
        )
    forks = document.epoch == previous.epoch and document.hash != previous.hash
    breaks = document.epoch == previous.epoch + 1 and document.previous_hash != previous.hash
    if forks or breaks:
        raise IdentityError(
            f"epoch {document.epoch} of the membership does not continue epoch {previous.epoch} as seen here",
            hint="governance signed two histories: tell your operator",
        )
    check_continues(previous.key_changes, previous.identity_keys, document.key_changes, document.identity_keys)
    return document


def _parse(payload: bytes, envelope: bytes) -> MembershipDocument:
    message = membership_pb2.Membership()
    try:
        message.ParseFromString(payload)
    except Exception:  # protobuf raises its own DecodeError, whose import path differs between its back ends
        raise IdentityError("these bytes are not a membership document") from None
    institutions = tuple(
        Institution(i.id, i.organisation, i.identity_key, i.epoch_key, i.epoch_key_signature)
        for i in message.institutions
    )
    people = tuple(
        Person(
            p.id,
            tuple(sorted(_role_name(r) for r in p.roles)),
            p.identity_key,
            Service(p.service.expires_at, tuple(p.service.datasets)) if p.HasField("service") else None,
        )
        for p in message.people
    )
    return MembershipDocument(
        consortium=message.consortium,
        epoch=message.epoch,
        previous_hash=message.previous_hash,
        issued_at=message.issued_at,
        institutions=institutions,
        people=people,
        log_key=message.log_key,
        log_origin=message.log_origin,
        minimum_cohort=message.minimum_cohort,
        colluders=message.colluders,
        key_changes=tuple(
            KeyChange(c.id, c.epoch, c.old_key, c.new_key, c.old_signature, c.reason) for c in message.key_changes
        ),
        valid_until=message.valid_until,
        activities=tuple(Activity(a.name, a.category, a.legal_basis, tuple(a.purposes)) for a in message.activities),
        hash=digest("membership", payload),
        payload=payload,
        envelope=envelope,
        _institutions={i.id: i for i in institutions},
        _people={p.id: p for p in people},
    )


def _role_name(number: int) -> str:
    name = _ROLE_NAMES.get(number)
    if name is None:
        raise IdentityError(f"the membership names an unknown role {number}", hint="update this software")
    return name


def _check(document: MembershipDocument) -> None:
    check_consortium(document.consortium)
    if document.epoch < 1 or (document.epoch == 1) != (document.previous_hash == b""):
        raise IdentityError(f"membership epoch {document.epoch} has a wrong predecessor")
    if document.epoch > 1 and len(document.previous_hash) != 32:
        raise IdentityError(f"membership epoch {document.epoch} has a wrong predecessor")
    if document.minimum_cohort < MINIMUM_COHORT:
        raise IdentityError(f"the minimum cohort must be at least {MINIMUM_COHORT}")
    if len(document.log_key) != 32 or not document.log_origin:
        raise IdentityError("the membership names no audit log")
    participants: list[Institution | Person] = [*document.institutions, *document.people]
    if len(participants) > MAX_PARTICIPANTS:
        raise IdentityError(f"a membership of more than {MAX_PARTICIPANTS} participants is not supported")
    _check_distinct("id", [p.id for p in participants])
    _check_distinct("identity key", [keys.key_id(p.identity_key) for p in participants])
    _check_distinct("epoch key", [keys.key_id(i.epoch_key) for i in document.institutions])
    for ids in ([i.id for i in document.institutions], [p.id for p in document.people]):
        if ids != sorted(ids):
            raise IdentityError("the membership is not sorted by id")
    for participant in participants:
        check_participant(participant.id)
        if len(participant.identity_key) != 32:
            raise SignatureError(f"the identity key of {participant.id!r} is no Ed25519 key")
    _check_people(document)
    check_activities(document.activities)
    if document.valid_until and document.valid_until <= document.issued_at:
        raise IdentityError("the membership ends before it was signed")
    check_changes(document.consortium, document.epoch, document.key_changes, document.identity_keys)
    _check_institutions(document)


def _check_people(document: MembershipDocument) -> None:
    for person in document.people:
        if not person.roles or len(set(person.roles)) != len(person.roles):
            raise IdentityError(f"{person.id!r} has no role, or one twice")
        if person.service is not None:
            check_service(person.roles, person.service)


def _check_institutions(document: MembershipDocument) -> None:
    spelled: dict[str, str] = {}
    for institution in document.institutions:
        organisation = check_organisation(institution.organisation)
        # Cohorts count distinct organisations; one hospital spelled in two ways must not count twice.
        if spelled.setdefault(organisation.casefold(), organisation) != organisation:
            raise IdentityError(
                f"organisation {organisation!r} is also spelled {spelled[organisation.casefold()]!r}",
                hint="spell it in one way, so that it counts once in a cohort",
            )
        keys.verify_epoch_key(
            institution.identity_key,
            institution.epoch_key_signature,
            document.consortium,
            institution.id,
            institution.epoch_key,
        )


def _check_distinct(what: str, values: list[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise IdentityError(f"the membership has {what} {value[:80]!r} twice")
        seen.add(value)

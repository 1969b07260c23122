"""What there is to verify, and the keys that count at each point of it. Must not know: where it was read from."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from queries.errors import CohortiumError
from trust.identity.membership import MembershipDocument
from trust.identity.membership import verify as verify_membership
from trust.tlog.cosignature import CosignatureVerifier
from trust.tlog.merkle import Frontier
from trust.tlog.notes import Verifier


class Entry(NamedTuple):
    """One entry as it was read: its sequence number and the exact bytes of its leaf."""

    seq: int
    leaf: bytes


class Gone(NamedTuple):
    """Entries before `size` that are not here: of these there are the subtrees, largest first.

    They were deleted after their time, as a later entry has to say, or are `sealed` in earlier shards than this one.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()
    sealed: bool = False

    def tree(self) -> Frontier:
        """Return the tree to go on from. Raise LogError where these are no such subtrees."""
        return Frontier(self.size, self.peaks)


NOTHING_GONE = Gone()


@dataclass(frozen=True)
class History:
    """A log as somebody gives it out. Nothing in it is to be believed before `verify`.

    `checkpoints` are signed notes with their cosignatures, `memberships` envelopes, oldest first.
    """

    entries: Iterable[Entry]
    checkpoints: Sequence[bytes] = ()
    memberships: Sequence[bytes] = ()
    gone: Gone = NOTHING_GONE


@dataclass
class Keys:
    """Whose signature counts, and when: memberships that governance signed, and the entries that published them."""

    documents: tuple[MembershipDocument, ...] = ()
    problem: str = ""
    """Why the chain of memberships ends where it does; "" where all of it verifies."""
    published: list[tuple[int, int]] = field(default_factory=list)
    """(sequence number, epoch) of every membership entry, ascending."""
    gone: bool = False
    """Whether earlier ones were deleted after their time."""

    @classmethod
    def of(cls, envelopes: Sequence[bytes], governance_key: bytes) -> Keys:
        """Verify memberships, oldest first, each against the one before it; stop at the first that is wrong."""
        documents: list[MembershipDocument] = []
        problem = ""
        for number, envelope in enumerate(envelopes, 1):
            try:
                documents.append(verify_membership(envelope, governance_key, documents[-1] if documents else None))
            except CohortiumError as error:
                problem = f"membership {number} of {len(envelopes)} does not verify: {error.message}"
                break
        return cls(tuple(documents), problem)

    def document(self, epoch: int) -> MembershipDocument | None:
        """Return the verified membership of an epoch."""
        return next((d for d in self.documents if d.epoch == epoch), None)

    def in_force(self, size: int) -> MembershipDocument | None:
        """Return the membership in force when the log had `size` entries; before the first was published, the first."""
        before = bisect_left(self.published, (size, 0))
        if before == 0 and self.gone and self.documents:
            epoch = self.published[0][1] - 1 if self.published else self.documents[-1].epoch
            return self.document(epoch) or self.documents[0]
        if before == 0:
            return self.documents[0] if self.documents else None
        return self.document(self.published[before - 1][1])

    def log_verifiers(self, previous_size: int, size: int) -> list[Verifier]:
        """Return the log keys of a checkpoint of `size`: in force then, or when its transaction began."""
        documents = (self.in_force(previous_size), self.in_force(size))
        return [Verifier(d.log_origin, d.log_key) for d in documents if d is not None]

    def witnesses(self) -> dict[tuple[str, bytes], CosignatureVerifier]:
        """Return every institution and auditor of every epoch as a witness, by key name and key ID."""
        found = {}
        for document in self.documents:
            known = [(institution.id, institution.identity_key) for institution in document.institutions]
            known += [(person.id, person.identity_key) for person in document.people if "auditor" in person.roles]
            for name, key in known:
                verifier = CosignatureVerifier(name, key)
                found[verifier.name, verifier.key_id] = verifier
        return found

    def identity_keys(self, institution: str) -> list[bytes]:
        """Return the identity keys that an institution has had, newest first."""
        found = [i.identity_key for d in reversed(self.documents) for i in d.institutions if i.id == institution]
        return list(dict.fromkeys(found))

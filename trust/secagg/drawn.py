"""The messages that exist only where neighbours are drawn, and ROSTER and SURVIVORS in the form that they have then.

What everybody must know of everybody travels as one bit or a few bytes a member, in the order of the invited list.
A parser raises MalformedMessage and nothing else. Must not know: the order of messages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from protos.v1 import secagg_pb2 as pb
from trust.secagg.graph import SEED_BYTES
from trust.secagg.messages import (
    ENTRY_LIMIT,
    SIGNATURE_BYTES,
    SMALL_LIMIT,
    JoinPublic,
    Manifest,
    RosterEntry,
    check_ids,
    check_size,
    parse_entry,
)
from trust.secagg.parameters import HASH_BYTES
from trust.secagg.refusals import COORDINATOR
from trust.secagg.wire import parse_canonical, require


def pack_present(names: Collection[str], invited: Sequence[str]) -> bytes:
    """Return one bit per invited member, from the lowest of the first byte: whether it is among `names`."""
    present = frozenset(names)
    bits = sum(1 << i for i, name in enumerate(invited) if name in present)
    return bits.to_bytes(_bitmap_bytes(invited), "little")


def unpack_present(data: bytes, invited: Sequence[str]) -> tuple[str, ...]:
    """Return the members whose bits are set, in order. Raises MalformedMessage, the coordinator's doing."""
    check_size(data, _bitmap_bytes(invited), COORDINATOR, "a list of members")
    bits = int.from_bytes(data, "little")
    require(bits >> len(invited) == 0, COORDINATOR, "a list of more members than are invited")
    return tuple(name for i, name in enumerate(invited) if bits >> i & 1)


def _bitmap_bytes(invited: Sequence[str]) -> int:
    return (len(invited) + 7) // 8


@dataclass(frozen=True, slots=True)
class Register:
    """REGISTER: a member's signed word that it takes part, before neighbours are drawn."""

    member: str
    signature: bytes

    def encode(self) -> bytes:
        """Return the wire form."""
        return pb.Register(member=self.member, signature=self.signature).SerializeToString(deterministic=True)

    @classmethod
    def parse(cls, data: bytes, party: str) -> Register:
        """Return the REGISTER of `party`."""
        message = parse_canonical(pb.Register, data, party, SMALL_LIMIT)
        require(message.member == party, party, "a REGISTER in another institution's name")
        check_size(message.signature, SIGNATURE_BYTES, party, "a signature")
        return cls(message.member, message.signature)


def encode_cohort(present: bytes) -> bytes:
    """Return the wire form of COHORT."""
    return pb.Cohort(present=present).SerializeToString(deterministic=True)


def parse_cohort(data: bytes, invited: Sequence[str]) -> tuple[bytes, tuple[str, ...]]:
    """Return the bits of COHORT, and the members that they stand for."""
    message = parse_canonical(pb.Cohort, data, COORDINATOR, SMALL_LIMIT)
    return message.present, unpack_present(message.present, invited)


@dataclass(frozen=True, slots=True)
class DrawnRoster:
    """ROSTER where neighbours are drawn: who joined and what each drew, and the JOINs of the receiver's neighbours."""

    present: bytes
    joined: tuple[str, ...]
    graph_seeds: bytes
    entries: tuple[RosterEntry, ...]


def parse_drawn_roster(data: bytes, invited: Sequence[str]) -> DrawnRoster:
    """Return what ROSTER says. Which entries it must have is for the receiver to check."""
    message = parse_canonical(pb.Roster, data, COORDINATOR, SMALL_LIMIT + 2 * ENTRY_LIMIT * len(invited))
    joined = unpack_present(message.present, invited)
    check_size(message.graph_seeds, SEED_BYTES * len(joined), COORDINATOR, "a list of graph seeds")
    entries = tuple(
        parse_entry(entry, JoinPublic.parse(entry.public_part, COORDINATOR, drawn=True)) for entry in message.entries
    )
    check_ids([entry.public.member for entry in entries], joined, COORDINATOR)
    return DrawnRoster(message.present, joined, message.graph_seeds, entries)


def encode_drawn_survivors(manifests: Sequence[Manifest], invited: Sequence[str]) -> bytes:
    """Return the wire form of SURVIVORS where neighbours are drawn; `manifests` are sorted by member."""
    return pb.Survivors(
        present=pack_present([manifest.member for manifest in manifests], invited),
        vector_hashes=b"".join(manifest.vector_hash for manifest in manifests),
    ).SerializeToString(deterministic=True)


def parse_drawn_survivors(data: bytes, invited: Sequence[str], roster: Sequence[str]) -> list[tuple[str, bytes]]:
    """Return (member, hash of its masked vector) of every survivor, sorted, each a member of the roster."""
    message = parse_canonical(pb.Survivors, data, COORDINATOR, SMALL_LIMIT + ENTRY_LIMIT * len(invited))
    require(not message.manifests, COORDINATOR, "manifests where neighbours are drawn")
    names = unpack_present(message.present, invited)
    check_size(message.vector_hashes, HASH_BYTES * len(names), COORDINATOR, "a list of vector hashes")
    check_ids(names, roster, COORDINATOR)
    hashes = [message.vector_hashes[at : at + HASH_BYTES] for at in range(0, len(message.vector_hashes), HASH_BYTES)]
    return list(zip(names, hashes, strict=True))

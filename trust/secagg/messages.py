"""The messages of a round as values, and their strict parsers: sizes, order and repetitions are checked here, once.

A parser raises MalformedMessage and nothing else. What a message claims is checked by the state machines. Must not
know: the order of messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from protos.v1 import secagg_pb2 as pb
from trust.secagg.field import ELEMENT_BYTES
from trust.secagg.graph import SEED_BYTES
from trust.secagg.keys import share_hash
from trust.secagg.parameters import HASH_BYTES, LONGEST_ID
from trust.secagg.refusals import COORDINATOR
from trust.secagg.wire import malformed, parse_canonical, require

SIGNATURE_BYTES = 64
SALT_BYTES = 16
NONCE_BYTES = 12
SMALL_LIMIT = 1 << 10
ENTRY_LIMIT = 1 << 10
"""More than any one entry of a list needs, but for the shares of noise layers."""
LAYER_LIMIT = 1 << 7
"""More than a layer's share, its salt and its hash need."""


def sealed_bytes(layers: int) -> int:
    """Size of what is sealed to one holder: nonce; shares of round key and seeds, each with its salt; GCM tag."""
    return NONCE_BYTES + (2 + layers) * (ELEMENT_BYTES + SALT_BYTES) + 16


@dataclass(frozen=True, slots=True)
class SealedShare:
    """What a dealer hands to one holder, with the salted hashes by which it is held to it."""

    sealed: bytes
    key_hash: bytes
    seed_hash: bytes
    """Of the shares of its seeds, one after the other, from the self-mask's up the chain."""

    def expected(self, level: int | None) -> bytes:
        """Return the hash of its share of the seed at a level of the chain, of the round key where that is None."""
        return self.key_hash if level is None else self.seed_hash[level * HASH_BYTES : (level + 1) * HASH_BYTES]

    def to_message(self) -> pb.SealedShare:
        """Return the protobuf form."""
        return pb.SealedShare(sealed=self.sealed, key_hash=self.key_hash, seed_hash=self.seed_hash)


@dataclass(frozen=True, slots=True)
class JoinPublic:
    """The part of a JOIN that the whole cohort sees. `data` are its exact bytes, which are signed and hashed."""

    data: bytes
    member: str
    round_key: bytes
    seed_commitment: bytes
    share_root: bytes
    graph_seed: bytes = b""

    @classmethod
    def make(
        cls, member: str, round_key: bytes, commitment: bytes, share_root: bytes, *, graph_seed: bytes = b""
    ) -> JoinPublic:
        """Return the value with its encoding."""
        message = pb.JoinPublic(
            member=member,
            round_key=round_key,
            seed_commitment=commitment,
            share_root=share_root,
            graph_seed=graph_seed,
        )
        data = message.SerializeToString(deterministic=True)
        return cls(data, member, round_key, commitment, share_root, graph_seed)

    @classmethod
    def parse(cls, data: bytes, party: str, *, drawn: bool = False) -> JoinPublic:
        """Return the value that `data` encodes, in a round where neighbours are `drawn` or not."""
        message = parse_canonical(pb.JoinPublic, data, party, SMALL_LIMIT)
        _check_id(message.member, party)
        check_size(message.round_key, 32, party, "a round key")
        check_size(message.seed_commitment, HASH_BYTES, party, "a seed commitment")
        check_size(message.share_root, HASH_BYTES, party, "a share root")
        check_size(message.graph_seed, SEED_BYTES if drawn else 0, party, "a graph seed")
        return cls(
            data,
            message.member,
            message.round_key,
            message.seed_commitment,
            message.share_root,
            message.graph_seed,
        )


@dataclass(frozen=True, slots=True)
class Join:
    """JOIN: the public part, its signature, and the sealed shares in order of share index."""

    public: JoinPublic
    signature: bytes
    shares: tuple[SealedShare, ...]

    def encode(self) -> bytes:
        """Return the wire form."""
        return pb.Join(
            public_part=self.public.data,
            signature=self.signature,
            shares=[share.to_message() for share in self.shares],
        ).SerializeToString(deterministic=True)

    @classmethod
    def parse(cls, data: bytes, party: str, invited: Sequence[str], *, layers: int = 0) -> Join:
        """Return the JOIN of `party` in a round of `invited`, each of whom is everybody's neighbour."""
        return cls._parse(data, party, holders=len(invited), own=invited.index(party), layers=layers)

    @classmethod
    def parse_drawn(cls, data: bytes, party: str, holders: int) -> Join:
        """Return the JOIN of `party`, which drew so many holders and is one more itself, the last."""
        return cls._parse(data, party, holders=holders + 1, own=holders, layers=0, drawn=True)

    @classmethod
    def _parse(cls, data: bytes, party: str, *, holders: int, own: int, layers: int, drawn: bool = False) -> Join:
        limit = SMALL_LIMIT + (ENTRY_LIMIT + layers * LAYER_LIMIT) * holders
        message = parse_canonical(pb.Join, data, party, limit)
        public = JoinPublic.parse(message.public_part, party, drawn=drawn)
        require(public.member == party, party, "a JOIN in another institution's name")
        check_size(message.signature, SIGNATURE_BYTES, party, "a signature")
        require(len(message.shares) == holders, party, "a JOIN without exactly one share per holder")
        shares = tuple(parse_share(share, party, own=i == own, layers=layers) for i, share in enumerate(message.shares))
        return cls(public, message.signature, shares)


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """One member's JOIN as another sees it; `share` is None in its own entry, and where it holds no share of it."""

    public: JoinPublic
    signature: bytes
    share: SealedShare | None
    proof: tuple[bytes, ...]


def encode_roster(entries: Sequence[RosterEntry], *, present: bytes = b"", graph_seeds: bytes = b"") -> bytes:
    """Return the wire form of ROSTER; the last two only where neighbours are drawn."""
    return pb.Roster(
        entries=[
            pb.RosterEntry(
                public_part=entry.public.data,
                signature=entry.signature,
                share=entry.share.to_message() if entry.share else None,
                proof=entry.proof,
            )
            for entry in entries
        ],
        present=present,
        graph_seeds=graph_seeds,
    ).SerializeToString(deterministic=True)


def parse_roster(data: bytes, me: str, invited: Sequence[str], *, layers: int = 0) -> tuple[RosterEntry, ...]:
    """Return the entries of the ROSTER to `me`, sorted by member, each member invited and named once."""
    limit = SMALL_LIMIT + (2 * ENTRY_LIMIT + layers * LAYER_LIMIT) * len(invited)
    message = parse_canonical(pb.Roster, data, COORDINATOR, limit)
    require(not message.present and not message.graph_seeds, COORDINATOR, "a drawn graph where none is drawn")
    entries = []
    for entry in message.entries:
        public = JoinPublic.parse(entry.public_part, COORDINATOR)
        own = public.member == me
        require(entry.HasField("share") != own, COORDINATOR, "a roster entry without the one share it must carry")
        entries.append(parse_entry(entry, public, layers=layers))
    check_ids([entry.public.member for entry in entries], invited, COORDINATOR)
    return tuple(entries)


def parse_entry(entry: pb.RosterEntry, public: JoinPublic, *, layers: int = 0) -> RosterEntry:
    """Return a roster entry whose public part is parsed, with the share that it carries or without."""
    check_size(entry.signature, SIGNATURE_BYTES, COORDINATOR, "a signature")
    require(all(len(node) == HASH_BYTES for node in entry.proof), COORDINATOR, "a proof node of a wrong size")
    share = parse_share(entry.share, COORDINATOR, own=False, layers=layers) if entry.HasField("share") else None
    require(share is not None or not entry.proof, COORDINATOR, "a proof without a share")
    return RosterEntry(public, entry.signature, share, tuple(entry.proof))


@dataclass(frozen=True, slots=True)
class Complaint:
    """A holder's signed word against the dealers it names."""

    member: str
    dealers: tuple[str, ...]
    signature: bytes

    def encode(self) -> bytes:
        """Return the wire form."""
        message = pb.Complaint(member=self.member, dealers=self.dealers, signature=self.signature)
        return message.SerializeToString(deterministic=True)

    @classmethod
    def parse(cls, data: bytes, party: str, roster: Sequence[str]) -> Complaint:
        """Return the complaint of `party` against others of the roster."""
        message = parse_canonical(pb.Complaint, data, party, SMALL_LIMIT + ENTRY_LIMIT * len(roster))
        require(message.member == party, party, "a complaint in another institution's name")
        check_size(message.signature, SIGNATURE_BYTES, party, "a signature")
        check_ids(message.dealers, roster, party)
        require(len(message.dealers) > 0, party, "a complaint against nobody")
        require(party not in message.dealers, party, "a complaint against itself")
        return cls(party, tuple(message.dealers), message.signature)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The signed hash of a masked vector."""

    member: str
    vector_hash: bytes
    signature: bytes

    def to_message(self) -> pb.Manifest:
        """Return the protobuf form."""
        return pb.Manifest(member=self.member, vector_hash=self.vector_hash, signature=self.signature)

    def encode(self) -> bytes:
        """Return the wire form."""
        return self.to_message().SerializeToString(deterministic=True)

    @classmethod
    def parse(cls, data: bytes, party: str) -> Manifest:
        """Return the manifest of `party`."""
        manifest = _parse_manifest(parse_canonical(pb.Manifest, data, party, SMALL_LIMIT), party)
        require(manifest.member == party, party, "a manifest in another institution's name")
        return manifest


def encode_survivors(manifests: Sequence[Manifest]) -> bytes:
    """Return the wire form of SURVIVORS."""
    return pb.Survivors(manifests=[m.to_message() for m in manifests]).SerializeToString(deterministic=True)


def parse_survivors(data: bytes, roster: Sequence[str]) -> tuple[Manifest, ...]:
    """Return the manifests of SURVIVORS, sorted by member, each member of the roster and named once."""
    message = parse_canonical(pb.Survivors, data, COORDINATOR, SMALL_LIMIT + ENTRY_LIMIT * len(roster))
    require(not message.present and not message.vector_hashes, COORDINATOR, "a drawn graph's list where none is drawn")
    manifests = tuple(_parse_manifest(manifest, COORDINATOR) for manifest in message.manifests)
    check_ids([manifest.member for manifest in manifests], roster, COORDINATOR)
    return manifests


@dataclass(frozen=True, slots=True)
class Confirm:
    """CONFIRM: a member's signature over roster and survivor list."""

    member: str
    signature: bytes

    def to_message(self) -> pb.Confirm:
        """Return the protobuf form."""
        return pb.Confirm(member=self.member, signature=self.signature)

    def encode(self) -> bytes:
        """Return the wire form."""
        return self.to_message().SerializeToString(deterministic=True)

    @classmethod
    def parse(cls, data: bytes, party: str) -> Confirm:
        """Return the CONFIRM of `party`."""
        confirm = _parse_confirm(parse_canonical(pb.Confirm, data, party, SMALL_LIMIT), party)
        require(confirm.member == party, party, "a CONFIRM in another institution's name")
        return confirm


def encode_confirmations(confirms: Sequence[Confirm]) -> bytes:
    """Return the wire form of CONFIRMATIONS."""
    return pb.Confirmations(confirms=[c.to_message() for c in confirms]).SerializeToString(deterministic=True)


def parse_confirmations(data: bytes, roster: Sequence[str]) -> tuple[Confirm, ...]:
    """Return the confirms of CONFIRMATIONS, sorted by member, each member of the roster and named once."""
    message = parse_canonical(pb.Confirmations, data, COORDINATOR, SMALL_LIMIT + ENTRY_LIMIT * len(roster))
    confirms = tuple(_parse_confirm(confirm, COORDINATOR) for confirm in message.confirms)
    check_ids([confirm.member for confirm in confirms], roster, COORDINATOR)
    return confirms


@dataclass(frozen=True, slots=True)
class Opening:
    """One share, opened: 32 bytes of share and the salt of its hash."""

    share: bytes
    salt: bytes

    def hash(self, kind: str, round_id: bytes, *, dealer: str, holder: str) -> bytes:
        """Return the salted hash by which the dealer is held to this share; `kind` is as `share_hash` says."""
        return share_hash(kind, round_id, dealer=dealer, holder=holder, share=self.share, salt=self.salt)


def encode_reveal(openings: Sequence[Opening]) -> bytes:
    """Return the wire form of REVEAL."""
    return pb.Reveal(openings=[pb.Opening(share=o.share, salt=o.salt) for o in openings]).SerializeToString(
        deterministic=True
    )


def parse_reveal(data: bytes, party: str, dealers: int) -> tuple[Opening, ...]:
    """Return the openings of the REVEAL of `party`: exactly one per dealer it holds shares of, in the roster's order.

    These are all of the roster, unless neighbours are drawn.
    """
    message = parse_canonical(pb.Reveal, data, party, SMALL_LIMIT + ENTRY_LIMIT * dealers)
    require(len(message.openings) == dealers, party, "a REVEAL without exactly one share per roster member")
    for opening in message.openings:
        check_size(opening.share, ELEMENT_BYTES, party, "a share")
        check_size(opening.salt, SALT_BYTES, party, "a salt")
    return tuple(Opening(opening.share, opening.salt) for opening in message.openings)


def parse_share(message: pb.SealedShare, party: str, *, own: bool, layers: int = 0) -> SealedShare:
    """Return a sealed share; what would be sealed to the dealer itself is empty."""
    check_size(message.sealed, 0 if own else sealed_bytes(layers), party, "a sealed share")
    check_size(message.key_hash, HASH_BYTES, party, "a share hash")
    check_size(message.seed_hash, HASH_BYTES * (1 + layers), party, "a list of share hashes")
    return SealedShare(message.sealed, message.key_hash, message.seed_hash)


def _parse_manifest(message: pb.Manifest, party: str) -> Manifest:
    _check_id(message.member, party)
    check_size(message.vector_hash, HASH_BYTES, party, "a vector hash")
    check_size(message.signature, SIGNATURE_BYTES, party, "a signature")
    return Manifest(message.member, message.vector_hash, message.signature)


def _parse_confirm(message: pb.Confirm, party: str) -> Confirm:
    _check_id(message.member, party)
    check_size(message.signature, SIGNATURE_BYTES, party, "a signature")
    return Confirm(message.member, message.signature)


def check_size(data: bytes, size: int, party: str, what: str) -> None:
    """Raise MalformedMessage unless `data` has so many bytes."""
    if len(data) != size:
        raise malformed(party, f"{what} of {len(data)} bytes instead of {size}")


def _check_id(name: str, party: str) -> None:
    require(1 <= len(name.encode()) <= LONGEST_ID, party, "an institution's id that is empty or too long")


def check_ids(names: Sequence[str], known: Sequence[str], party: str) -> None:
    """Raise MalformedMessage unless `names` are sorted, distinct and among those known."""
    require(all(a < b for a, b in pairwise(names)), party, "a list that is unsorted or repeats an id")
    strangers = set(names).difference(known)
    if strangers:
        raise malformed(party, f"a list with {min(strangers)[:64]!r}, who has no part in this")

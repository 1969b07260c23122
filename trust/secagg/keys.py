"""Every key, commitment, hash and signed statement of a round: what is derived from what, under which label.

All of them bind the round id. From the roster on they bind H(roster) too, so that agents who were shown different
rosters derive masks that never cancel and sign statements that never match. Must not know: the order of messages.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from trust import ed25519
from trust.secagg.field import PRIME, element_bytes
from trust.secagg.masks import SegmentKey
from trust.secagg.parameters import Member
from trust.secagg.refusals import BadSignature
from trust.transcript import derive, digest, frame, integer

_CACHED_PAIRS = 4096


class PairKeys:
    """The X25519 secrets between one institution's epoch key and its peers'. One object lives as long as the epoch key.

    An agent keeps one across rounds, so that a round costs no exchange of static keys. Secrets stay in memory.
    """

    def __init__(self, epoch_key: X25519PrivateKey) -> None:
        self._private = epoch_key
        self.public = epoch_key.public_key().public_bytes_raw()
        self._secrets: dict[bytes, bytes] = {}

    def secret(self, peer: bytes) -> bytes:
        """Return the shared secret with the raw public key `peer`. Raises ValueError for a key of small order."""
        found = self._secrets.get(peer)
        if found is None:
            if len(self._secrets) >= _CACHED_PAIRS:  # epochs come and go; what is still needed is made again
                self._secrets.clear()
            found = self._secrets[peer] = exchange(self._private, peer)
        return found


def exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    """X25519 (RFC 7748). Raises ValueError if `public` is of small order, as its contributory check demands."""
    return private.exchange(X25519PublicKey.from_public_bytes(public))


def round_private_key(secret: int, round_id: bytes, member: str) -> X25519PrivateKey:
    """Return the X25519 round key that the shared field element `secret` stands for."""
    raw = derive(element_bytes(secret), "secagg/round-key", round_id, member.encode())
    return X25519PrivateKey.from_private_bytes(raw)


def seed_commitment(secret: int, round_id: bytes, member: str) -> bytes:
    """Return the commitment to a self-mask secret: it hides because the secret is uniform over 2^256 - 189 values."""
    return digest("secagg/seed-commitment", round_id, member.encode(), element_bytes(secret))


def seed_below(seed: int, round_id: bytes, member: str) -> int:
    """Return the next seed down a member's chain, which ends with the self-mask secret. Nothing leads back up."""
    return int.from_bytes(derive(element_bytes(seed), "secagg/seed-below", round_id, member.encode()), "big") % PRIME


def layer_key(seed: int, round_id: bytes, member: str) -> bytes:
    """Return the key under which a member draws the layer of noise that belongs to a seed of its chain."""
    return derive(element_bytes(seed), "secagg/noise-layer", round_id, member.encode())


def sealing_key(pair: bytes, membership_hash: bytes, round_id: bytes, sender: str, receiver: str) -> bytes:
    """Return the AES-256-GCM key for the one ciphertext that `sender` seals to `receiver` in a round."""
    return derive(pair, "secagg/seal", membership_hash, round_id, sender.encode(), receiver.encode())


def sealing_context(round_id: bytes, sender: str, receiver: str) -> bytes:
    """Return the associated data of that ciphertext."""
    return frame("secagg/sealed", round_id, sender.encode(), receiver.encode())


def share_hash(kind: str, round_id: bytes, *, dealer: str, holder: str, share: bytes, salt: bytes) -> bytes:
    """Return the salted hash of a share; `kind` is "key" or what `seed_kind` returns."""
    return digest("secagg/share", kind.encode(), round_id, dealer.encode(), holder.encode(), share, salt)


def seed_kind(level: int) -> str:
    """Return what the hash of a share says that it is of: the self-mask secret at level 0, or a seed further up."""
    return f"seed {level}" if level else "seed"


def share_leaf(holder: str, key_hash: bytes, seed_hash: bytes, sealed: bytes) -> bytes:
    """Return the Merkle leaf by which a dealer commits to all that one holder gets from it."""
    return frame("secagg/leaf", holder.encode(), key_hash, seed_hash, digest("secagg/sealed-hash", sealed))


def roster_hash(round_id: bytes, public_parts: Iterable[bytes]) -> bytes:
    """H(roster), over the exact public bytes of every JOIN in order of member id."""
    return digest("secagg/roster", round_id, *public_parts)


def cohort_hash(round_id: bytes, present: bytes) -> bytes:
    """H(cohort): those from whom neighbours are drawn."""
    return digest("secagg/cohort", round_id, present)


def drawn_roster_hash(round_id: bytes, cohort: bytes, present: bytes, graph_seeds: bytes) -> bytes:
    """H(roster) where neighbours are drawn: who was there to be drawn, who joined, and everything that was drawn."""
    return digest("secagg/drawn-roster", round_id, cohort, present, graph_seeds)


def pair_mask_keys(shared: bytes, round_id: bytes, roster: bytes, one: str, other: str) -> SegmentKey:
    """Return the segment keys of the mask between two members, the same whichever is named first."""
    low, high = sorted((one.encode(), other.encode()))
    return lambda segment: derive(shared, "secagg/pair-mask", round_id, roster, low, high, integer(segment))


def self_mask_keys(secret: int, round_id: bytes, roster: bytes, member: str) -> SegmentKey:
    """Return the segment keys of a member's self-mask, from its field element."""
    seed = element_bytes(secret)
    return lambda segment: derive(seed, "secagg/self-mask", round_id, roster, member.encode(), integer(segment))


def join_statement(round_id: bytes, public_part: bytes) -> bytes:
    """What a JOIN signs."""
    return frame("secagg/join", round_id, public_part)


def register_statement(round_id: bytes, member: str) -> bytes:
    """What a REGISTER signs."""
    return frame("secagg/register", round_id, member.encode())


def drawn_join_statement(round_id: bytes, cohort: bytes, public_part: bytes) -> bytes:
    """What a JOIN signs where neighbours are drawn."""
    return frame("secagg/drawn-join", round_id, cohort, public_part)


def complaint_statement(round_id: bytes, roster: bytes, member: str, dealers: Iterable[str]) -> bytes:
    """What a complaint signs."""
    return frame("secagg/complaint", round_id, roster, member.encode(), *(dealer.encode() for dealer in dealers))


def manifest_statement(round_id: bytes, roster: bytes, member: str, vector_hash: bytes) -> bytes:
    """What a manifest signs."""
    return frame("secagg/manifest", round_id, roster, member.encode(), vector_hash)


def survivors_hash(round_id: bytes, roster: bytes, manifests: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the hash of a survivor list: (member, vector hash) in order of member id."""
    return digest("secagg/survivors", round_id, roster, *(frame("survivor", m.encode(), h) for m, h in manifests))


def confirm_statement(round_id: bytes, roster: bytes, survivors: bytes, member: str) -> bytes:
    """What a CONFIRM signs."""
    return frame("secagg/confirm", round_id, roster, survivors, member.encode())


def verify(member: Member, signature: bytes, statement: bytes, *, what: str, party: str) -> None:
    """Raise BadSignature, attributed to `party`, unless `member` signed `statement`."""
    try:
        ed25519.verify(member.identity_key, signature, statement)
    except ed25519.InvalidSignature as error:
        message = f"the {what} in the name of institution {member.id} is not signed by it"
        raise BadSignature(message, party=party) from error

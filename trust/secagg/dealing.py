"""A dealer's side of JOIN and a holder's side of ROSTER: making, sealing, committing to, opening and checking shares.

Must not know: the order of messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from trust.secagg import keys
from trust.secagg.field import ELEMENT_BYTES, RandomBytes, element_bytes, parse_element, random_element, split
from trust.secagg.messages import NONCE_BYTES, SALT_BYTES, JoinPublic, Opening, SealedShare
from trust.secagg.parameters import Member, RoundParameters
from trust.secagg.tree import LeafTree


@dataclass(frozen=True, slots=True)
class HeldShares:
    """The shares that one holder has from one dealer. At most one of them is ever opened."""

    of_key: Opening
    of_seeds: tuple[Opening, ...]
    """By level: of the self-mask secret first, then up the chain."""

    def pack(self) -> bytes:
        """Return the plaintext that is sealed."""
        return b"".join(opening.share + opening.salt for opening in (self.of_key, *self.of_seeds))

    @classmethod
    def unpack(cls, data: bytes) -> HeldShares:
        """Return the shares that `pack` packed. The length is right: GCM ciphertexts are checked for it."""
        size = ELEMENT_BYTES + SALT_BYTES
        of_key, *of_seeds = (
            Opening(data[at : at + ELEMENT_BYTES], data[at + ELEMENT_BYTES : at + size])
            for at in range(0, len(data), size)
        )
        return cls(of_key, tuple(of_seeds))

    def hashes(self, round_id: bytes, dealer: str, holder: str) -> tuple[bytes, bytes]:
        """Return the salted hashes (of the key's share, of the seeds' shares one after the other)."""
        of_seeds = (
            opening.hash(keys.seed_kind(level), round_id, dealer=dealer, holder=holder)
            for level, opening in enumerate(self.of_seeds)
        )
        return self.of_key.hash("key", round_id, dealer=dealer, holder=holder), b"".join(of_seeds)


@dataclass(frozen=True, slots=True)
class Dealt:
    """What a dealer made: the public part, the shares to send, and what stays in its memory."""

    public: JoinPublic
    shares: tuple[SealedShare, ...]
    own: HeldShares
    round_key: X25519PrivateKey
    seeds: tuple[int, ...]
    """The chain by level: the self-mask secret first."""


@dataclass(frozen=True, slots=True)
class Terms:
    """To whom a member deals, and how many of those open a secret."""

    parameters: RoundParameters
    holders: Sequence[str]
    """In order of share index; the dealer is among them."""
    threshold: int
    graph_seed: bytes = b""


def deal(
    terms: Terms,
    me: str,
    members: Mapping[str, Member],
    pair_keys: keys.PairKeys,
    random_bytes: RandomBytes,
) -> Dealt:
    """Return fresh secrets of `me` and their shares, one of each for every holder.

    `random_bytes` is read in this order: round-key secret, topmost seed, coefficients for the first, for every seed
    from the self-mask's up, then for every holder the salts in that order and, unless the holder is `me`, the nonce.
    """
    p, round_id = terms.parameters, terms.parameters.round_id
    key_secret, top = random_element(random_bytes), random_element(random_bytes)
    seeds = chain_down(top, len(p.rungs), round_id, me)
    dealt = [split(secret, terms.threshold, len(terms.holders), random_bytes) for secret in (key_secret, *seeds)]
    shares, leaves, own = [], [], None
    for holder, of_holder in zip(terms.holders, zip(*dealt, strict=True), strict=True):
        of_key, *of_seeds = (Opening(element_bytes(share), random_bytes(SALT_BYTES)) for share in of_holder)
        held = HeldShares(of_key, tuple(of_seeds))
        if holder == me:
            own, sealed = held, b""
        else:
            pair = pair_keys.secret(members[holder].epoch_key)
            key = keys.sealing_key(pair, p.membership_hash, round_id, me, holder)
            nonce = random_bytes(NONCE_BYTES)
            context = keys.sealing_context(round_id, me, holder)
            sealed = nonce + AESGCM(key).encrypt(nonce, held.pack(), context)
        share = SealedShare(sealed, *held.hashes(round_id, me, holder))
        shares.append(share)
        leaves.append(keys.share_leaf(holder, share.key_hash, share.seed_hash, sealed))
    if own is None:
        raise ValueError("a dealer is one of its own holders")
    round_key = keys.round_private_key(key_secret, round_id, me)
    public = JoinPublic.make(
        me,
        round_key.public_key().public_bytes_raw(),
        keys.seed_commitment(seeds[0], round_id, me),
        LeafTree(leaves).root,
        graph_seed=terms.graph_seed,
    )
    return Dealt(public, tuple(shares), own, round_key, seeds)


def chain_down(seed: int, level: int, round_id: bytes, member: str) -> tuple[int, ...]:
    """Return a member's seeds from the self-mask secret, level 0, up to the given one."""
    chain = [seed]
    for _ in range(level):
        chain.append(keys.seed_below(chain[-1], round_id, member))
    return tuple(reversed(chain))


def layer_keys(chain: Sequence[int], round_id: bytes, member: str) -> tuple[bytes, ...]:
    """Return the keys of the noise layers that a chain of seeds opens: one for each but the self-mask secret."""
    return tuple(keys.layer_key(seed, round_id, member) for seed in chain[1:])


def share_tree(holders: Sequence[str], shares: Sequence[SealedShare]) -> LeafTree:
    """Return the tree whose root a dealer of `shares` must have signed."""
    return LeafTree(
        [
            keys.share_leaf(holder, share.key_hash, share.seed_hash, share.sealed)
            for holder, share in zip(holders, shares, strict=True)
        ]
    )


def open_share(parameters: RoundParameters, dealer: str, me: str, pair: bytes, share: SealedShare) -> HeldShares | None:
    """Return what `dealer` sealed to `me`, or None if it does not open or is not what the dealer's hashes say."""
    round_id = parameters.round_id
    key = keys.sealing_key(pair, parameters.membership_hash, round_id, dealer, me)
    nonce, ciphertext = share.sealed[:NONCE_BYTES], share.sealed[NONCE_BYTES:]
    try:
        held = HeldShares.unpack(AESGCM(key).decrypt(nonce, ciphertext, keys.sealing_context(round_id, dealer, me)))
        for opening in (held.of_key, *held.of_seeds):
            parse_element(opening.share)
    except (InvalidTag, ValueError):
        return None
    key_hash, seed_hash = held.hashes(round_id, dealer, me)
    matches = constant_time.bytes_eq(key_hash, share.key_hash) and constant_time.bytes_eq(seed_hash, share.seed_hash)
    return held if matches else None

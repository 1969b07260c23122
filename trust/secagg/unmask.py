"""The end of a round: from revealed shares to the bare sum. Blames a dealer whose shares open to something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from trust.secagg import keys
from trust.secagg.dealing import chain_down, layer_keys
from trust.secagg.field import parse_element, reconstruct
from trust.secagg.graph import Topology
from trust.secagg.masks import MaskStream, Ring, apply_masks
from trust.secagg.messages import JoinPublic
from trust.secagg.refusals import BadDealer


@dataclass(frozen=True, slots=True)
class Ground:
    """What of a round its end rests on: `publics` are the JOINs of the roster, in its order."""

    round_id: bytes
    roster_hash: bytes
    publics: Mapping[str, JoinPublic]
    topology: Topology


@dataclass(frozen=True, slots=True)
class Opened:
    """Self-mask secrets and noise layers of the survivors, round keys of the others: never of one member both."""

    seeds: Mapping[str, int]
    round_keys: Mapping[str, X25519PrivateKey]
    layer_keys: Mapping[str, tuple[bytes, ...]]


def open_secrets(
    ground: Ground, survivors: Sequence[str], revealed: Mapping[str, Mapping[int, bytes]], level: int
) -> Opened:
    """Reconstruct one secret of every roster member from the first of its shares, as many as are needed.

    `revealed` has them per dealer by position from 0, share index less one; those of survivors are of the seed at
    `level` of their chains. Raises BadDealer if a secret is not what its dealer committed to: every share was checked
    against that dealer's own hash, so no helper can cause this.
    """
    seeds, round_keys, layers, surviving, round_id = {}, {}, {}, frozenset(survivors), ground.round_id
    for dealer, public in ground.publics.items():
        shares = revealed[dealer]
        chosen = sorted(shares)[: ground.topology.threshold]
        secret = reconstruct(
            tuple(position + 1 for position in chosen), [parse_element(shares[position]) for position in chosen]
        )
        if dealer in surviving:
            chain = chain_down(secret, level, round_id, dealer)
            seeds[dealer], layers[dealer] = chain[0], layer_keys(chain, round_id, dealer)
            matches = keys.seed_commitment(chain[0], round_id, dealer) == public.seed_commitment
        else:
            round_key = round_keys[dealer] = keys.round_private_key(secret, round_id, dealer)
            matches = round_key.public_key().public_bytes_raw() == public.round_key
        if not matches:
            raise BadDealer(
                f"institution {dealer} dealt shares that do not reconstruct what it committed to",
                party=dealer,
                hint=f"start a new round without {dealer}",
            )
    return Opened(seeds, round_keys, layers)


def remove_masks(total: Ring, ground: Ground, opened: Opened) -> None:
    """Take every mask that is left off the sum of the survivors' masked vectors, in place.

    Left are each survivor's self-mask, and the masks that survivors share with members who did not survive.
    """
    apply_masks(total, _left(ground, opened))


def _left(ground: Ground, opened: Opened) -> Iterator[MaskStream]:
    """Yield them one by one, since there may be many thousands."""
    round_id, roster = ground.round_id, ground.roster_hash
    for member, seed in opened.seeds.items():
        yield MaskStream(keys.self_mask_keys(seed, round_id, roster, member), -1)
    for gone, round_key in opened.round_keys.items():
        for member in ground.topology.partners(gone):
            if member not in opened.seeds:
                continue
            shared = keys.exchange(round_key, ground.publics[member].round_key)
            pair = keys.pair_mask_keys(shared, round_id, roster, member, gone)
            yield MaskStream(pair, -1 if gone > member else 1)  # the opposite of what the survivor applied

"""What a coordinator sees of a round, and what it can do with it together with colluding institutions."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from protos.v1 import secagg_pb2 as pb
from trust.secagg import CoordinatorState, dealing, keys, masks, messages
from trust.secagg.field import parse_element, reconstruct
from trust.secagg.rehearsal import Consortium, Rehearsal

EVERYONE = "abcde"
CHI_SQUARE_255 = 377.1
"""Exceeded with probability 1e-6 by chi-square with 255 degrees of freedom: the false-alarm rate of one test here."""


def received(rehearsal: Rehearsal, step: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for member, what, message in rehearsal.received:
        if what == step:
            found[member] = found.get(member, b"") + message
    return found


def test_the_bound_of_the_uniformity_test_is_the_stated_one() -> None:
    from scipy.stats import chi2

    assert 0.9e-6 < chi2.sf(CHI_SQUARE_255, 255) < 1e-6


def test_each_masked_upload_is_uniform_and_two_of_the_same_data_differ_everywhere() -> None:
    consortium = Consortium("abcd")
    uploads = []
    for _ in range(2):
        rehearsal = Rehearsal(consortium, consortium.parameters(length=8192))
        rehearsal.vectors.update({name: np.zeros(8192, dtype=np.uint64) for name in "abcd"})
        rehearsal.run()
        uploads.append(received(rehearsal, "chunk"))
    for name in "abcd":
        for upload in uploads:
            counts = np.bincount(np.frombuffer(upload[name], np.uint8), minlength=256)
            expected = len(upload[name]) / 256
            assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARE_255
        one, two = (np.frombuffer(upload[name], "<u8") for upload in uploads)
        assert (one != two).all()  # 8192 coincidences of 2^-64
    for one, two in itertools.combinations("abcd", 2):
        assert uploads[0][one] != uploads[0][two]


def test_nothing_about_the_data_travels_beside_the_masked_vector() -> None:
    """Flower sends example counts in clear beside it. Here every message but the chunks is as long for any data."""
    consortium, sizes = Consortium("abcd"), []
    for fill in (0, 1, 2**64 - 1):
        rehearsal = Rehearsal(consortium)
        rehearsal.vectors.update({name: np.full(4, fill, dtype=np.uint64) for name in "abcd"})
        rehearsal.run()
        sizes.append([(member, step, len(message)) for member, step, message in rehearsal.received])
        assert Counter(step for _, step, _ in rehearsal.received) == Counter(
            {"join": 4, "chunk": 4, "manifest": 4, "confirm": 4, "reveal": 4}
        )
        assert {len(message) for _, step, message in rehearsal.received if step == "chunk"} == {32}
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.fixture(scope="module")
def finished() -> Rehearsal:
    """A round in which e joined, vanished before it uploaded, and still helped."""
    rehearsal = Rehearsal(Consortium(EVERYONE), None)
    rehearsal.join(EVERYONE)
    rehearsal.upload("abcd")
    rehearsal.confirm(EVERYONE)
    rehearsal.reveal(EVERYONE)
    assert rehearsal.coordinator.state is CoordinatorState.FINISHED
    return rehearsal


def public_parts(rehearsal: Rehearsal) -> dict[str, pb.JoinPublic]:
    joins = received(rehearsal, "join")
    return {name: pb.JoinPublic.FromString(pb.Join.FromString(message).public_part) for name, message in joins.items()}


def opened_kinds(rehearsal: Rehearsal) -> dict[str, set[str]]:
    """Which kinds of shares of each dealer were revealed, told by the dealers' own hashes."""
    roster, round_id = rehearsal.coordinator.roster, rehearsal.parameters.round_id
    kinds: dict[str, set[str]] = {name: set() for name in roster}
    joins = {name: pb.Join.FromString(message) for name, message in received(rehearsal, "join").items()}
    for helper, message in received(rehearsal, "reveal").items():
        position = rehearsal.parameters.positions[helper]
        for dealer, opening in zip(roster, messages.parse_reveal(message, helper, len(roster)), strict=True):
            share = joins[dealer].shares[position]
            for kind, expected in (("key", share.key_hash), ("seed", share.seed_hash)):
                if opening.hash(kind, round_id, dealer=dealer, holder=helper) == expected:
                    kinds[dealer].add(kind)
    return kinds


def test_the_shares_of_a_round_never_include_both_kinds_of_one_member(finished: Rehearsal) -> None:
    assert opened_kinds(finished) == {"a": {"seed"}, "b": {"seed"}, "c": {"seed"}, "d": {"seed"}, "e": {"key"}}


def colluders_shares(rehearsal: Rehearsal, victim: str, colluders: str) -> tuple[tuple[int, ...], list[int], list[int]]:
    """(share indices, key shares, seed shares) of the victim that colluders open with their own epoch keys."""
    join = messages.Join.parse(received(rehearsal, "join")[victim], victim, rehearsal.parameters.invited)
    epoch_key = rehearsal.consortium.members[victim].epoch_key
    xs, of_key, of_seed = [], [], []
    for name in colluders:
        position = rehearsal.parameters.positions[name]
        pair = rehearsal.consortium.pair_keys[name].secret(epoch_key)
        held = dealing.open_share(rehearsal.parameters, victim, name, pair, join.shares[position])
        assert held is not None
        xs.append(position + 1)
        of_key.append(parse_element(held.of_key.share))
        of_seed.append(parse_element(held.of_seeds[0].share))
    return tuple(xs), of_key, of_seed


def unmasks(rehearsal: Rehearsal, victim: str, seed: int, shared: dict[str, bytes]) -> bool:
    """Whether a self-mask secret and pair secrets take the victim's upload back to its vector."""
    roster_hash = rehearsal.coordinator._roster_hash
    vector = np.frombuffer(received(rehearsal, "chunk")[victim], rehearsal.parameters.dtype).copy()
    round_id = rehearsal.parameters.round_id
    streams = [masks.MaskStream(keys.self_mask_keys(seed, round_id, roster_hash, victim), -1)]
    for peer, secret in shared.items():
        pair = keys.pair_mask_keys(secret, round_id, roster_hash, victim, peer)
        streams.append(masks.MaskStream(pair, -1 if peer > victim else 1))
    masks.apply_masks(vector, streams)
    return bool((vector == rehearsal.vectors[victim]).all())


def test_everything_received_and_colluders_do_not_open_one_vector(finished: Rehearsal) -> None:
    """The attack is run with all that the coordinator has; it works with one more secret, which it has not."""
    victim, colluder = "a", "b"
    publics = public_parts(finished)
    reveals = received(finished, "reveal")
    openings = {name: messages.parse_reveal(message, name, 5) for name, message in reveals.items()}
    xs = (1, 2, 3, 4)
    position = finished.coordinator.roster.index
    seed = reconstruct(xs, [parse_element(openings[name][position(victim)].share) for name in "abcd"])
    dropped = reconstruct(xs, [parse_element(openings[name][position("e")].share) for name in "abcd"])
    e_key = keys.round_private_key(dropped, finished.parameters.round_id, "e")
    known = {
        "e": keys.exchange(e_key, publics[victim].round_key),
        colluder: finished_secret(finished, colluder, publics[victim].round_key),
    }
    assert not unmasks(finished, victim, seed, known)
    for guess in ({}, {"e": known["e"]}, {"c": bytes(32), "d": bytes(32), **known}):
        assert not unmasks(finished, victim, seed, guess)
    indices, of_key, _ = colluders_shares(finished, victim, "b")
    guessed = keys.round_private_key(reconstruct(indices, of_key), finished.parameters.round_id, victim)
    assert guessed.public_key().public_bytes_raw() != publics[victim].round_key
    full = {name: finished_secret(finished, name, publics[victim].round_key) for name in "bcd"} | {"e": known["e"]}
    assert unmasks(finished, victim, seed, full)  # the masks of c and d are what protects a


def finished_secret(rehearsal: Rehearsal, name: str, peer: bytes) -> bytes:
    """The pair secret of a member's round key, remade from the shares of all others: t of them can, fewer cannot."""
    indices, of_key, _ = colluders_shares(rehearsal, name, EVERYONE.replace(name, ""))
    return keys.exchange(
        keys.round_private_key(reconstruct(indices, of_key), rehearsal.parameters.round_id, name), peer
    )


def test_before_reveal_the_self_mask_alone_protects_everyone(finished: Rehearsal) -> None:
    """Without REVEAL even all round keys do not open a vector: fewer than t colluders cannot remove its self-mask."""
    victim = "a"
    publics = public_parts(finished)
    all_pairs = {name: finished_secret(finished, name, publics[victim].round_key) for name in "bcde"}
    for colluders in ("b", "bc", "bcd"):  # fewer than t = 4, whatever c the round was set for
        indices, _, of_seed = colluders_shares(finished, victim, colluders)
        guess = reconstruct(indices, of_seed)
        assert keys.seed_commitment(guess, finished.parameters.round_id, victim) != publics[victim].seed_commitment
        assert not unmasks(finished, victim, guess, all_pairs)
    indices, _, of_seed = colluders_shares(finished, victim, "bcde")
    assert unmasks(finished, victim, reconstruct(indices, of_seed), all_pairs)

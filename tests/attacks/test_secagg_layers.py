"""Layers of noise that a round takes off: a coordinator gets those that the survivors allow, and no further one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from protos.v1 import secagg_pb2 as pb
from trust.secagg import dealing, keys, masks, messages
from trust.secagg.dealing import share_tree
from trust.secagg.field import parse_element, random_element, reconstruct
from trust.secagg.refusals import BadDealer, BadShare, BadSurvivors, MalformedMessage, UnacceptableRound
from trust.secagg.rehearsal import Consortium, Rehearsal, seeded

EVERYONE = "abcdefg"
THRESHOLD, COLLUDERS = 5, 1
RUNGS = (6, 7)


@pytest.fixture(scope="module")
def consortium() -> Consortium:
    return Consortium(EVERYONE)


def play(consortium: Consortium, survivors: str, rungs: tuple[int, ...] = RUNGS) -> Rehearsal:
    """A round whose members all join; those named upload, and everybody helps to the end."""
    encoded = consortium.parameters(threshold=THRESHOLD, colluders=COLLUDERS, rungs=rungs)
    rehearsal = Rehearsal(consortium, encoded)
    rehearsal.join(EVERYONE)
    rehearsal.upload(survivors)
    rehearsal.confirm(EVERYONE)
    assert (rehearsal.reveal(EVERYONE) == rehearsal.expected()).all()
    return rehearsal


def received(rehearsal: Rehearsal, step: str) -> dict[str, bytes]:
    return {member: message for member, what, message in rehearsal.received if what == step}


def held_by(rehearsal: Rehearsal, dealer: str, holder: str) -> dealing.HeldShares:
    """What a colluding holder opens with its own epoch key."""
    join = messages.Join.parse(received(rehearsal, "join")[dealer], dealer, rehearsal.parameters.invited, layers=2)
    pair = rehearsal.consortium.pair_keys[holder].secret(rehearsal.consortium.members[dealer].epoch_key)
    share = join.shares[rehearsal.parameters.positions[holder]]
    held = dealing.open_share(rehearsal.parameters, dealer, holder, pair, share)
    assert held is not None
    return held


def rebuilt(rehearsal: Rehearsal, dealer: str, holders: str, level: int) -> int:
    """What holders together make of their shares of a dealer's seed at a level."""
    xs = tuple(rehearsal.parameters.positions[name] + 1 for name in holders)
    return reconstruct(xs, [parse_element(held_by(rehearsal, dealer, name).of_seeds[level].share) for name in holders])


@pytest.mark.parametrize(("survivors", "level"), [("abcdefg", 2), ("abcdef", 1), ("abcde", 0)])
def test_what_is_opened_follows_from_how_many_survive(consortium: Consortium, survivors: str, level: int) -> None:
    rehearsal = play(consortium, survivors)
    opened = dict(zip(rehearsal.coordinator.survivors, rehearsal.coordinator.layer_keys, strict=True))
    assert opened == {name: rehearsal.layer_keys[name][:level] for name in survivors}


@pytest.mark.parametrize(("survivors", "level"), [("abcdef", 1), ("abcde", 0)])
def test_coordinator_and_colluders_reach_no_seed_above_what_was_opened(
    consortium: Consortium, survivors: str, level: int
) -> None:
    """All they have: every revealed share, and the colluder's own shares of every level. One t-th share would do."""
    rehearsal = play(consortium, survivors)
    victim, round_id = "a", rehearsal.parameters.round_id
    commitment = messages.JoinPublic.parse(
        pb.Join.FromString(received(rehearsal, "join")[victim]).public_part, victim
    ).seed_commitment

    def opens(seed: int, at: int) -> bool:
        return keys.seed_commitment(dealing.chain_down(seed, at, round_id, victim)[0], round_id, victim) == commitment

    reveals = {name: messages.parse_reveal(data, name, 7) for name, data in received(rehearsal, "reveal").items()}
    xs = tuple(rehearsal.parameters.positions[name] + 1 for name in reveals)[:THRESHOLD]
    shares = [parse_element(reveals[name][0].share) for name in list(reveals)[:THRESHOLD]]
    found = reconstruct(xs, shares)
    assert opens(found, level)
    for above in range(level + 1, 3):
        assert not opens(found, above)
        assert not opens(rebuilt(rehearsal, victim, "g", above), above)
        assert not opens(rebuilt(rehearsal, victim, "defg", above), above)  # t - 1 of them
        assert opens(rebuilt(rehearsal, victim, "cdefg", above), above)  # what protects it is the threshold
    key = keys.layer_key(found, round_id, victim)
    assert key not in rehearsal.layer_keys[victim][level:]


def test_a_survivor_list_that_names_who_did_not_upload_is_refused(
    consortium: Consortium,
) -> None:
    """The one way to have more layers opened than may be: claim more survivors. A claimed agent itself refuses."""
    encoded = consortium.parameters(threshold=THRESHOLD, colluders=COLLUDERS, rungs=RUNGS)
    rehearsal = Rehearsal(consortium, encoded)
    rehearsal.join(EVERYONE)
    rehearsal.upload("abcdef")
    said = pb.Survivors.FromString(rehearsal.survivors)
    forged = messages.Manifest("g", bytes(32), consortium.identity_keys["a"].sign(b"not of g"))
    said.manifests.append(forged.to_message())
    inflated = said.SerializeToString(deterministic=True)
    with pytest.raises(BadSurvivors):
        rehearsal.agents["g"].on_survivors(inflated)
    confirmations = messages.encode_confirmations(
        [messages.Confirm.parse(rehearsal.agents[name].on_survivors(inflated), name) for name in "abcde"]
    )
    for name in "abcde":  # they have not seen that g refused, but nobody vouches for the upload of g
        with pytest.raises(Exception, match="g is not signed by it"):
            rehearsal.agents[name].on_confirmations(confirmations)


def broken_chain(monkeypatch: pytest.MonkeyPatch, liar: str) -> None:
    """One dealer's upper seeds do not lead to the secret of its self-mask."""
    true = dealing.chain_down

    def chain_down(seed: int, level: int, round_id: bytes, member: str) -> tuple[int, ...]:
        chain = true(seed, level, round_id, member)
        return (*chain[:-1], random_element(seeded(b"liar"))) if member == liar else chain

    monkeypatch.setattr(dealing, "chain_down", chain_down)


def test_a_dealer_whose_seeds_are_no_chain_is_named_and_no_sum_is_released(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal = Rehearsal(consortium, consortium.parameters(threshold=THRESHOLD, rungs=RUNGS))
    with monkeypatch.context() as patch:
        broken_chain(patch, "c")
        rehearsal.join(EVERYONE)
    rehearsal.upload(EVERYONE)
    rehearsal.confirm(EVERYONE)
    with pytest.raises(BadDealer, match="institution c dealt shares that do not reconstruct") as caught:
        rehearsal.reveal(EVERYONE)
    assert caught.value.party == "c"
    assert rehearsal.coordinator.layer_keys == ()


def test_a_helper_that_opens_another_layer_than_asked_is_named(consortium: Consortium) -> None:
    rehearsal = Rehearsal(consortium, consortium.parameters(threshold=THRESHOLD, rungs=RUNGS))
    rehearsal.join(EVERYONE)
    held = dict(rehearsal.agents["b"]._held)
    rehearsal.upload("abcdef")
    rehearsal.confirm(EVERYONE)
    for level in (0, 2):
        openings = [held[name].of_key if name == "g" else held[name].of_seeds[level] for name in EVERYONE]
        rehearsal.coordinator.blamed.clear()  # the first one would be remembered
        with pytest.raises(BadShare, match="b revealed a share"):
            rehearsal.coordinator.on_reveal("b", messages.encode_reveal(openings))


@pytest.mark.parametrize("rungs", [(5, 6), (7, 6), (6, 6), (8,), (0, 6), tuple(range(6, 23))])
def test_rungs_that_do_not_rise_above_the_threshold_are_unacceptable(
    consortium: Consortium, rungs: tuple[int, ...]
) -> None:
    with pytest.raises(UnacceptableRound, match="rungs"):
        consortium.parameters(threshold=THRESHOLD, rungs=rungs)


def test_shares_of_another_number_of_layers_are_malformed(consortium: Consortium) -> None:
    fewer = Rehearsal(consortium, consortium.parameters(threshold=THRESHOLD, rungs=(7,)))
    rehearsal = Rehearsal(consortium, consortium.parameters(threshold=THRESHOLD, rungs=RUNGS))
    with pytest.raises(MalformedMessage, match="list of share hashes"):
        rehearsal.coordinator.on_join("a", fewer.agents["a"].join())


def test_an_altered_hash_of_an_upper_seed_is_complained_of(consortium: Consortium) -> None:
    rehearsal = Rehearsal(consortium, consortium.parameters(threshold=THRESHOLD, rungs=RUNGS))
    invited = rehearsal.parameters.invited
    for name in EVERYONE:
        data = rehearsal.agents[name].join()
        if name == "b":
            join = messages.Join.parse(data, name, invited, layers=2)
            changed = join.shares[2].seed_hash[:-1] + bytes([join.shares[2].seed_hash[-1] ^ 1])
            shares = (*join.shares[:2], replace(join.shares[2], seed_hash=changed), *join.shares[3:])
            root = share_tree(invited, shares).root
            public = messages.JoinPublic.make(name, join.public.round_key, join.public.seed_commitment, root)
            statement = keys.join_statement(rehearsal.parameters.round_id, public.data)
            data = messages.Join(public, consortium.identity_keys[name].sign(statement), shares).encode()
        rehearsal.coordinator.on_join(name, data)
    rosters = rehearsal.coordinator.close_joins()
    others = [name for name in rosters if name != "b"]
    assert [name for name in others if rehearsal.agents[name].on_roster(rosters[name])] == ["c"]


def test_an_upload_left_out_of_the_sum_leaves_its_masks_in(consortium: Consortium) -> None:
    """All seven are listed and both layers opened, but the coordinator adds up six and removes all that it can."""
    rehearsal = play(consortium, EVERYONE)
    parameters, roster_hash = rehearsal.parameters, rehearsal.coordinator._roster_hash
    uploads = {name: np.frombuffer(data, parameters.dtype) for name, data in received(rehearsal, "chunk").items()}
    self_masks = {}
    for name in EVERYONE:
        seed = rebuilt(rehearsal, name, EVERYONE.replace(name, "")[:THRESHOLD], 0)
        stream = masks.MaskStream(keys.self_mask_keys(seed, parameters.round_id, roster_hash, name), 1)
        self_masks[name] = np.zeros(parameters.length, parameters.dtype)
        masks.apply_masks(self_masks[name], [stream])
    every = np.add.reduce(list(uploads.values())) - np.add.reduce(list(self_masks.values()))
    assert (every == rehearsal.expected()).all()
    for left_out in EVERYONE:
        six = every - uploads[left_out] + self_masks[left_out]
        assert (six != rehearsal.expected() - rehearsal.vectors[left_out]).all()

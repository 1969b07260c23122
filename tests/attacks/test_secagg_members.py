"""Members that cheat or break: they are named, and the others finish without them where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from protos.v1 import secagg_pb2 as pb
from queries.errors import ProtocolViolation
from trust.secagg import AgentState, CoordinatorState, dealing, keys, messages
from trust.secagg.dealing import share_tree
from trust.secagg.refusals import BadDealer, BadShare, BadSignature, BadUpload, MalformedMessage, OutOfStep
from trust.secagg.rehearsal import Consortium, Rehearsal

EVERYONE = "abcde"


@pytest.fixture(scope="module")
def consortium() -> Consortium:
    return Consortium(EVERYONE)


@pytest.fixture
def rehearsal(consortium: Consortium) -> Rehearsal:
    return Rehearsal(consortium)


def finish(rehearsal: Rehearsal, who: str) -> None:
    """Those members finish the round and the sum is right."""
    rehearsal.upload(who)
    rehearsal.confirm(who)
    assert (rehearsal.reveal(who) == rehearsal.expected()).all()


Edit = Callable[[int, messages.SealedShare], messages.SealedShare]


def join_as(rehearsal: Rehearsal, name: str, edit: Edit, round_key: bytes | None = None) -> bytes:
    """The JOIN of a dealer that altered its shares or round key and signs them all the same."""
    invited = rehearsal.parameters.invited
    join = messages.Join.parse(rehearsal.agents[name].join(), name, invited)
    shares = tuple(edit(i, share) for i, share in enumerate(join.shares))
    public = messages.JoinPublic.make(
        name, round_key or join.public.round_key, join.public.seed_commitment, share_tree(invited, shares).root
    )
    signature = rehearsal.consortium.identity_keys[name].sign(
        keys.join_statement(rehearsal.parameters.round_id, public.data)
    )
    return messages.Join(public, signature, shares).encode()


def same(_index: int, share: messages.SealedShare) -> messages.SealedShare:
    return share


def flip(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def bad_seal(*holders: int) -> Edit:
    def edit(index: int, share: messages.SealedShare) -> messages.SealedShare:
        return replace(share, sealed=flip(share.sealed)) if index in holders else share

    return edit


def wrong_hash(*holders: int) -> Edit:
    def edit(index: int, share: messages.SealedShare) -> messages.SealedShare:
        return replace(share, seed_hash=flip(share.seed_hash)) if index in holders else share

    return edit


def complaints_about(rehearsal: Rehearsal, dealer: str, join: bytes) -> dict[str, bytes]:
    """Everyone joins, `dealer` with that message; return who complains."""
    for name in EVERYONE:
        rehearsal.coordinator.on_join(name, join if name == dealer else rehearsal.agents[name].join())
    complaints = {}
    for name, roster in rehearsal.coordinator.close_joins().items():
        if name == dealer:
            continue
        complaint = rehearsal.agents[name].on_roster(roster)
        if complaint is not None:
            complaints[name] = complaint
            assert rehearsal.agents[name].state is AgentState.COMPLAINED
    return complaints


@pytest.mark.parametrize(
    ("edit", "victims"),
    [(bad_seal(0), "a"), (bad_seal(0, 2, 3, 4), "acde"), (wrong_hash(2), "c"), (wrong_hash(3, 4), "de")],
)
def test_a_dealer_whose_shares_do_not_open_is_excluded_and_the_round_completes_without_it(
    consortium: Consortium, rehearsal: Rehearsal, edit: Edit, victims: str
) -> None:
    complaints = complaints_about(rehearsal, "b", join_as(rehearsal, "b", edit))
    assert "".join(complaints) == victims
    for name, complaint in complaints.items():
        rehearsal.coordinator.on_complaint(name, complaint)
    assert rehearsal.coordinator.accused == ("b",)
    with pytest.raises(BadDealer, match="b stands at most of the complaints") as caught:
        rehearsal.coordinator.close_uploads()
    assert caught.value.party == "b"
    assert "without b" in caught.value.hint
    assert "b" in rehearsal.coordinator.blamed
    again = Rehearsal(consortium, consortium.parameters(invited=set(EVERYONE) - set(rehearsal.coordinator.accused)))
    again.join("acde")
    finish(again, "acde")


def test_a_round_key_of_small_order_is_complained_of_by_everyone(rehearsal: Rehearsal) -> None:
    """It would make every mask shared with its owner public."""
    complaints = complaints_about(rehearsal, "b", join_as(rehearsal, "b", same, round_key=bytes(32)))
    assert "".join(complaints) == "acde"


def test_a_liar_that_accuses_many_goes_alone(rehearsal: Rehearsal, consortium: Consortium) -> None:
    rehearsal.join(EVERYONE)
    agent, dealers = rehearsal.agents["e"], ("a", "b")
    statement = keys.complaint_statement(rehearsal.parameters.round_id, agent._roster_hash, "e", dealers)
    lie = messages.Complaint("e", dealers, consortium.identity_keys["e"].sign(statement))
    rehearsal.coordinator.on_complaint("e", lie.encode())
    assert rehearsal.coordinator.accused == ("e",)


def test_a_forged_complaint_accuses_nobody(rehearsal: Rehearsal) -> None:
    rehearsal.join(EVERYONE)
    with pytest.raises(BadSignature, match="complaint in the name of institution a"):
        rehearsal.coordinator.on_complaint("a", messages.Complaint("a", ("b",), bytes(64)).encode())
    assert rehearsal.coordinator.accused == ()
    finish(rehearsal, "bcde")


@pytest.mark.parametrize("survives", [True, False])
def test_a_dealer_whose_shares_do_not_reconstruct_is_blamed_by_name(
    consortium: Consortium, survives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each share opens and matches its hash, but they lie on no polynomial through what the dealer committed to."""
    rehearsal = Rehearsal(consortium)
    honest = dealing.split
    for name in EVERYONE:
        with monkeypatch.context() as patch:
            if name == "c":
                patch.setattr(dealing, "split", lambda s, t, n, r: [share ^ 1 for share in honest(s, t, n, r)])
            rehearsal.coordinator.on_join(name, rehearsal.agents[name].join())
    for name, roster in rehearsal.coordinator.close_joins().items():
        assert rehearsal.agents[name].on_roster(roster) is None
    rehearsal.upload(EVERYONE if survives else "abde")
    rehearsal.confirm("abde")
    with pytest.raises(BadDealer, match="institution c dealt shares that do not reconstruct") as caught:
        rehearsal.reveal("abde")
    assert caught.value.party == "c"
    assert "c" in rehearsal.coordinator.blamed
    assert rehearsal.coordinator.state is CoordinatorState.FAILED
    again = Rehearsal(consortium, consortium.parameters(invited="abde"))
    again.join("abde")
    finish(again, "abde")


def test_a_join_whose_shares_are_not_the_signed_ones_is_refused(rehearsal: Rehearsal) -> None:
    join = pb.Join.FromString(rehearsal.agents["b"].join())
    join.shares[0].key_hash = bytes(32)
    blames(rehearsal, "b", BadDealer, lambda: rehearsal.coordinator.on_join("b", join.SerializeToString()))
    rehearsal.join("acde")
    finish(rehearsal, "acde")


def blames(rehearsal: Rehearsal, party: str, kind: type[ProtocolViolation], call: Callable[[], object]) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.party == party
    assert rehearsal.coordinator.blamed == {party: caught.value.message}


def test_a_join_in_another_name_or_from_another_round_is_refused(consortium: Consortium) -> None:
    other = Rehearsal(consortium).agents["b"].join()
    for sender, message, kind in (("b", other, BadSignature), ("c", other, MalformedMessage)):
        rehearsal = Rehearsal(consortium)
        blames(rehearsal, sender, kind, lambda s=sender, m=message, r=rehearsal: r.coordinator.on_join(s, m))


def test_a_second_join_is_refused_and_its_sender_left_out(rehearsal: Rehearsal) -> None:
    join = rehearsal.agents["a"].join()
    rehearsal.coordinator.on_join("a", join)
    blames(rehearsal, "a", OutOfStep, lambda: rehearsal.coordinator.on_join("a", join))
    rehearsal.join("bcde")
    assert rehearsal.coordinator.roster == tuple("bcde")
    finish(rehearsal, "bcde")


def test_whoever_broke_the_protocol_is_not_heard_again_in_this_round(rehearsal: Rehearsal) -> None:
    with pytest.raises(MalformedMessage):
        rehearsal.coordinator.on_join("a", b"rubbish")
    with pytest.raises(OutOfStep, match="institution a already broke the protocol"):
        rehearsal.coordinator.on_join("a", rehearsal.agents["a"].join())
    rehearsal.join("bcde")
    finish(rehearsal, "bcde")


def test_a_stranger_is_refused(rehearsal: Rehearsal) -> None:
    blames(rehearsal, "zoe", OutOfStep, lambda: rehearsal.coordinator.on_join("zoe", b""))


def test_messages_before_their_step_are_refused(rehearsal: Rehearsal) -> None:
    blames(rehearsal, "a", OutOfStep, lambda: rehearsal.coordinator.on_reveal("a", b""))


@pytest.mark.parametrize(
    ("tamper", "kind", "match"),
    [
        (lambda data: data[:-8], BadUpload, "24 of the 32 bytes"),
        (lambda data: data + bytes(8), BadUpload, "more than the 32 bytes"),
        (lambda data: data[:-1], BadUpload, "no whole number of entries"),
        (lambda _: b"", BadUpload, "empty"),
        (lambda _: bytes((1 << 20) + 8), BadUpload, "above 1 MiB"),
        (lambda data: flip(data, 3), BadUpload, "signed another vector"),
    ],
)
def test_a_truncated_over_long_or_flipped_upload_is_dropped(
    rehearsal: Rehearsal, tamper: Callable[[bytes], bytes], kind: type[ProtocolViolation], match: str
) -> None:
    rehearsal.join(EVERYONE)
    data = b"".join(rehearsal.agents["b"].masked_chunks(rehearsal.vectors["b"]))
    sink = rehearsal.coordinator.start_upload("b")
    manifest = rehearsal.agents["b"].manifest()

    def upload() -> None:
        sink.feed(tamper(data))
        sink.finish(manifest)

    with pytest.raises(kind, match=match) as caught:
        upload()
    assert caught.value.party == "b"
    assert "b" in rehearsal.coordinator.blamed
    with pytest.raises(OutOfStep):
        sink.feed(data)
    finish(rehearsal, "acde")
    assert rehearsal.coordinator.survivors == tuple("acde")


def test_a_manifest_of_another_round_is_dropped(consortium: Consortium, rehearsal: Rehearsal) -> None:
    other = Rehearsal(consortium)
    other.join(EVERYONE)
    data = b"".join(other.agents["b"].masked_chunks(other.vectors["b"]))
    rehearsal.join(EVERYONE)
    sink = rehearsal.coordinator.start_upload("b")
    sink.feed(data)
    blames(rehearsal, "b", BadSignature, lambda: sink.finish(other.agents["b"].manifest()))
    finish(rehearsal, "acde")


def test_a_second_upload_is_refused_on_both_sides_and_does_not_change_the_sum(rehearsal: Rehearsal) -> None:
    """Two vectors under one mask would show their difference."""
    rehearsal.join(EVERYONE)
    data = b"".join(rehearsal.agents["a"].masked_chunks(rehearsal.vectors["a"]))
    sink = rehearsal.coordinator.start_upload("a")
    sink.feed(data)
    sink.finish(rehearsal.agents["a"].manifest())
    blames(rehearsal, "a", OutOfStep, lambda: rehearsal.coordinator.start_upload("a"))
    with pytest.raises(OutOfStep):
        rehearsal.agents["a"].masked_chunks(rehearsal.vectors["a"])
    rehearsal.upload("bcde")
    rehearsal.confirm("bcde")
    assert (rehearsal.reveal("bcde") == rehearsal.expected()).all()
    assert rehearsal.coordinator.survivors == tuple(EVERYONE)


def test_a_helpers_bad_share_is_blamed_and_skipped(rehearsal: Rehearsal) -> None:
    rehearsal.join(EVERYONE)
    rehearsal.upload("abcd")
    rehearsal.confirm(EVERYONE)
    reveal = pb.Reveal.FromString(rehearsal.agents["c"].on_confirmations(rehearsal.confirmations))
    reveal.openings[1].share = flip(reveal.openings[1].share)
    match = "institution c revealed a share that does not match what its dealer b committed to"
    with pytest.raises(BadShare, match=match):
        rehearsal.coordinator.on_reveal("c", reveal.SerializeToString())
    assert (rehearsal.reveal("abde") == rehearsal.expected()).all()
    assert list(rehearsal.coordinator.blamed) == ["c"]


def test_shares_swapped_between_dealers_or_of_the_other_kind_are_refused(rehearsal: Rehearsal) -> None:
    rehearsal.join(EVERYONE)
    rehearsal.upload(EVERYONE)
    rehearsal.confirm(EVERYONE)
    agent = rehearsal.agents["c"]
    other_kind = messages.encode_reveal([agent._held[name].of_key for name in EVERYONE])
    reveal = pb.Reveal.FromString(agent.on_confirmations(rehearsal.confirmations))
    swapped = pb.Reveal(openings=[reveal.openings[i] for i in (1, 0, 2, 3, 4)]).SerializeToString()
    with pytest.raises(BadShare):
        rehearsal.coordinator.on_reveal("c", swapped)
    del rehearsal.coordinator.blamed["c"]  # so that the next attempt is judged on its own
    with pytest.raises(BadShare):
        rehearsal.coordinator.on_reveal("c", other_kind)


def test_a_confirm_of_another_list_is_refused(rehearsal: Rehearsal) -> None:
    rehearsal.join(EVERYONE)
    rehearsal.upload(EVERYONE)
    shown = pb.Survivors.FromString(rehearsal.survivors)
    del shown.manifests[0]
    confirm = rehearsal.agents["e"].on_survivors(shown.SerializeToString())
    blames(rehearsal, "e", BadSignature, lambda: rehearsal.coordinator.on_confirm("e", confirm))
    rehearsal.confirm("abcd")
    assert (rehearsal.reveal("abcd") == rehearsal.expected()).all()


def test_a_member_that_vanishes_before_it_uploads_does_not_cost_the_round(rehearsal: Rehearsal) -> None:
    """Flower loses the round then."""
    rehearsal.join(EVERYONE)
    finish(rehearsal, "abcd")

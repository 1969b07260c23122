"""A coordinator that cheats: every agent refuses, names it, and takes no further part."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from protos.v1 import secagg_pb2 as pb
from queries.errors import ProtocolViolation, QuorumError
from trust.secagg import AgentRound, AgentState, RoundParameters, field, messages, parse_parameters
from trust.secagg.refusals import (
    BadConfirmations,
    BadRoster,
    BadSignature,
    BadSurvivors,
    MalformedMessage,
    OutOfStep,
    UnacceptableRound,
)
from trust.secagg.rehearsal import Consortium, Rehearsal

EVERYONE = "abcd"


@pytest.fixture(scope="module")
def consortium() -> Consortium:
    return Consortium(EVERYONE)


@pytest.fixture
def rehearsal(consortium: Consortium) -> Rehearsal:
    return Rehearsal(consortium)


def refuses(agent: AgentRound, call: Callable[[], object], kind: type[ProtocolViolation], match: str = "") -> None:
    """The call is refused in the coordinator's name, and so is everything afterwards; no secret is left."""
    with pytest.raises(kind, match=match) as caught:
        call()
    assert type(caught.value) is kind
    assert caught.value.party == "coordinator"
    assert agent.state is AgentState.REFUSED
    assert (agent._dealt, agent._held, agent._shared) == (None, {}, {})
    for later in (agent.join, agent.manifest):
        with pytest.raises(OutOfStep):
            later()
    for handle in (agent.on_roster, agent.on_survivors, agent.on_confirmations):
        with pytest.raises(OutOfStep):
            handle(b"")


def announce(consortium: Consortium, **changes: object) -> bytes:
    parameters: RoundParameters = parse_parameters(consortium.parameters())
    return replace(parameters, **changes).encode()  # type: ignore[arg-type] # any field


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"threshold": 1}, "threshold 1 is unsafe"),  # Flower's clients took any threshold, 1 included
        ({"threshold": 2}, "threshold 2 is unsafe"),  # 2t = n
        ({"threshold": 0}, "threshold 0 is unsafe"),
        ({"threshold": 5}, "exceeds"),
        ({"threshold": 3, "colluders": 2}, "2 may collude"),  # 2t = n + c
        ({"minimum_cohort": 2}, "minimum cohort 2"),
        ({"minimum_cohort": 5}, "minimum cohort 5"),
        ({"colluders": 0}, "tolerates 0 colluding"),
        ({"invited": ("a", "b")}, "smallest cohort"),
        ({"invited": ("a", "b", "b", "c")}, "twice"),
        ({"invited": ("b", "a", "c", "d")}, "not sorted"),
        ({"invited": ("b", "c", "d", "zoe")}, "zoe, which the membership"),  # an institution that nobody admitted
        ({"invited": ("", "a", "b", "c")}, "an id that is empty"),
        ({"invited": tuple(f"h{i:04}" for i in range(2001)), "threshold": 1334}, "at most 2000"),
        (
            {"invited": tuple(f"h{i:03}" for i in range(501)), "threshold": 400, "colluders": 200},
            "no number of neighbours is safe",
        ),
        ({"length": 0}, "0 entries"),
        ({"length": 1 << 40}, "entries"),
        ({"ring_bits": 16}, "16 bits"),
    ],
)
def test_unsafe_parameters_are_refused(consortium: Consortium, changes: dict[str, object], match: str) -> None:
    with pytest.raises(UnacceptableRound, match=match) as caught:
        consortium.agent("b", announce(consortium, **changes))
    assert caught.value.party == "coordinator"


def test_a_threshold_of_one_gets_no_share_of_anything(consortium: Consortium) -> None:
    """Flower's clients took it. Then each share is the secret, and any one helper, or colluder, opens everybody."""
    secret = field.random_element(secrets.token_bytes)
    assert field.split(secret, 1, len(EVERYONE), secrets.token_bytes) == [secret] * len(EVERYONE)
    shares = []
    for name in EVERYONE:
        with pytest.raises(UnacceptableRound, match="threshold 1 is unsafe"):
            shares.append(consortium.agent(name, announce(consortium, threshold=1)).join())
    assert shares == []


def test_a_round_that_this_institution_is_not_invited_to_is_refused(consortium: Consortium) -> None:
    with pytest.raises(UnacceptableRound, match="institution d is not among those invited"):
        consortium.agent("d", consortium.parameters(invited="abc"))


def test_a_cohort_below_local_policy_is_refused(consortium: Consortium) -> None:
    with pytest.raises(UnacceptableRound, match="minimum cohort 3 is below this institution's 4"):
        consortium.agent("a", consortium.parameters(), minimum_cohort=4)
    with pytest.raises(UnacceptableRound, match="tolerates 1 colluding institutions, and this one asks for 2"):
        consortium.agent("a", consortium.parameters(), colluders=2)


def test_sybil_institutions_of_one_organisation_count_once() -> None:
    consortium = Consortium(EVERYONE, organisations={"b": "one", "c": "one", "d": "one"})
    with pytest.raises(UnacceptableRound, match="2 organisations"):
        consortium.agent("a", consortium.parameters())


def test_a_roster_and_a_survivor_list_count_organisations_too() -> None:
    consortium = Consortium("abcde", organisations={"a": "one", "b": "one"})
    for step in ("roster", "survivors"):
        rehearsal = Rehearsal(consortium, consortium.parameters(threshold=4, minimum_cohort=4))
        rehearsal.join("abcde")
        if step == "roster":
            agent = consortium.agent("a", rehearsal.encoded)
            agent.join()
            agent._join, agent._dealt = rehearsal.agents["a"]._join, rehearsal.agents["a"]._dealt
            message = cut(pb.Roster, rehearsal.rosters["a"], "entries", keep=(0, 1, 2, 3))
            refuses(agent, lambda agent=agent, m=message: agent.on_roster(m), BadRoster, "3 organisations")
        else:
            rehearsal.upload("abcde")
            agent = rehearsal.agents["a"]
            message = cut(pb.Survivors, rehearsal.survivors, "manifests", keep=(0, 1, 2, 3))
            refuses(agent, lambda agent=agent, m=message: agent.on_survivors(m), BadSurvivors, "3 organisations")


def test_institutions_that_share_a_key_are_one(consortium: Consortium) -> None:
    members = dict(consortium.members)
    members["c"] = replace(members["c"], epoch_key=members["d"].epoch_key)
    with pytest.raises(UnacceptableRound, match="the same key"):
        AgentRound(
            consortium.parameters(),
            me="a",
            identity_key=consortium.identity_keys["a"],
            epoch_key=consortium.epoch_keys["a"],
            members=members,
            minimum_cohort=3,
            colluders=1,
        )


def cut(kind: type, message: bytes, field: str, keep: tuple[int, ...]) -> bytes:
    """The message with only those entries of a list, in that order."""
    parsed = kind.FromString(message)
    entries = [getattr(parsed, field)[i] for i in keep]
    return kind(**{field: entries}).SerializeToString(deterministic=True)


def joined(rehearsal: Rehearsal) -> dict[str, bytes]:
    """Everyone has joined; the rosters that an honest coordinator would send."""
    for name in EVERYONE:
        rehearsal.coordinator.on_join(name, rehearsal.agents[name].join())
    return rehearsal.coordinator.close_joins()


@pytest.mark.parametrize(
    ("keep", "kind", "match"),
    [
        ((0, 1), BadRoster, "below the threshold"),
        ((1, 2, 3), BadRoster, "without institution a"),
        ((0, 2, 1, 3), MalformedMessage, "unsorted"),
        ((0, 1, 1, 2), MalformedMessage, "repeats an id"),
        ((), BadRoster, "below the threshold"),
    ],
)
def test_a_roster_that_is_cut_or_stirred_is_refused(
    rehearsal: Rehearsal, keep: tuple[int, ...], kind: type[ProtocolViolation], match: str
) -> None:
    message = cut(pb.Roster, joined(rehearsal)["a"], "entries", keep)
    agent = rehearsal.agents["a"]
    refuses(agent, lambda: agent.on_roster(message), kind, match)


def edit_entry(message: bytes, index: int, edit: Callable[[pb.RosterEntry], None]) -> bytes:
    roster = pb.Roster.FromString(message)
    edit(roster.entries[index])
    return roster.SerializeToString(deterministic=True)


def substitute_key(entry: pb.RosterEntry) -> None:
    public = pb.JoinPublic.FromString(entry.public_part)
    public.round_key = bytes(range(32))
    entry.public_part = public.SerializeToString(deterministic=True)


def test_a_substituted_round_key_is_refused(rehearsal: Rehearsal) -> None:
    """Flower's clients took the public keys that the server passed on, whoever had made them."""
    message = edit_entry(joined(rehearsal)["a"], 1, substitute_key)
    agent = rehearsal.agents["a"]
    refuses(agent, lambda: agent.on_roster(message), BadSignature, "the JOIN in the name of institution b")


def test_an_altered_own_entry_is_refused(rehearsal: Rehearsal) -> None:
    message = edit_entry(joined(rehearsal)["a"], 0, substitute_key)
    agent = rehearsal.agents["a"]
    refuses(agent, lambda: agent.on_roster(message), BadRoster, "altered the JOIN of institution a")


def test_an_invented_peer_is_refused(consortium: Consortium) -> None:
    """The coordinator signs a JOIN with a key of its own: only keys in the membership document count."""
    invented = Consortium(EVERYONE)
    encoded = consortium.parameters()
    real, false = Rehearsal(consortium, encoded), Rehearsal(invented, encoded)
    roster = pb.Roster.FromString(joined(real)["a"])
    roster.entries[1].CopyFrom(pb.Roster.FromString(joined(false)["a"]).entries[1])
    agent = real.agents["a"]
    message = roster.SerializeToString(deterministic=True)
    refuses(agent, lambda: agent.on_roster(message), BadSignature, "institution b")


def test_a_share_swapped_between_members_is_refused(rehearsal: Rehearsal) -> None:
    rosters = joined(rehearsal)
    theirs = pb.Roster.FromString(rosters["c"]).entries[1]

    def swap(entry: pb.RosterEntry) -> None:
        entry.share.CopyFrom(theirs.share)

    def swap_with_proof(entry: pb.RosterEntry) -> None:
        entry.CopyFrom(theirs)

    for name, edit in (("a", swap), ("d", swap_with_proof)):
        agent, message = rehearsal.agents[name], edit_entry(rosters[name], 1, edit)
        refuses(
            agent,
            lambda agent=agent, m=message: agent.on_roster(m),
            BadRoster,
            "did not deliver the share that institution b",
        )


def test_a_second_roster_is_refused(rehearsal: Rehearsal) -> None:
    rosters = joined(rehearsal)
    agent = rehearsal.agents["a"]
    assert agent.on_roster(rosters["a"]) is None
    refuses(agent, lambda: agent.on_roster(rosters["a"]), OutOfStep, "rostered")


def test_split_views_of_the_roster_never_cancel_and_never_confirm(consortium: Consortium) -> None:
    """One agent is shown a roster without d: neither its masks nor its signatures match those of the others."""
    rehearsal = Rehearsal(consortium)
    rosters = joined(rehearsal)
    agents, vectors = rehearsal.agents, rehearsal.vectors
    assert agents["a"].on_roster(cut(pb.Roster, rosters["a"], "entries", (0, 1, 2))) is None
    for name in "bcd":
        assert agents[name].on_roster(rosters[name]) is None
    manifests = {}
    for name in EVERYONE:
        sink = rehearsal.coordinator.start_upload(name)
        for chunk in agents[name].masked_chunks(vectors[name]):
            sink.feed(chunk)
        manifests[name] = agents[name].manifest()
        if name == "a":
            with pytest.raises(BadSignature):
                sink.finish(manifests[name])
        else:
            sink.finish(manifests[name])
    shown = pb.Survivors(manifests=[pb.Manifest.FromString(manifests[name]) for name in "abc"])
    message = shown.SerializeToString(deterministic=True)
    confirms = confirmations(agents, dict.fromkeys("abc", message))
    refuses(agents["a"], lambda: agents["a"].on_confirmations(confirms), BadSignature, "CONFIRM in the name of")
    refuses(agents["b"], lambda: agents["b"].on_confirmations(confirms), BadSignature, "CONFIRM in the name of")
    survivors = rehearsal.coordinator.close_uploads()
    rehearsal.coordinator.on_confirm("d", agents["d"].on_survivors(survivors))
    with pytest.raises(QuorumError):
        rehearsal.coordinator.close_confirms()


def confirmations(agents: Mapping[str, AgentRound], shown: Mapping[str, bytes]) -> bytes:
    """CONFIRMATIONS made of what these agents answer to these survivor lists."""
    confirms = [messages.Confirm.parse(agents[name].on_survivors(message), name) for name, message in shown.items()]
    return messages.encode_confirmations(confirms)


def test_a_replayed_round_meets_fresh_secrets(rehearsal: Rehearsal) -> None:
    """An agent that is made to answer the same announcement again shares nothing with its first answer."""
    rosters = joined(rehearsal)
    again = rehearsal.consortium.agent("a", rehearsal.encoded)
    again.join()
    refuses(again, lambda: again.on_roster(rosters["a"]), BadRoster, "altered the JOIN of institution a")


def test_a_join_replayed_into_another_round_is_refused(consortium: Consortium) -> None:
    old, new = Rehearsal(consortium), Rehearsal(consortium)
    old_rosters, new_rosters = joined(old), joined(new)
    roster = pb.Roster.FromString(new_rosters["a"])
    roster.entries[2].CopyFrom(pb.Roster.FromString(old_rosters["a"]).entries[2])
    agent = new.agents["a"]
    message = roster.SerializeToString(deterministic=True)
    refuses(agent, lambda: agent.on_roster(message), BadSignature, "the JOIN in the name of institution c")


@pytest.fixture
def uploaded(rehearsal: Rehearsal) -> Rehearsal:
    rehearsal.join(EVERYONE)
    rehearsal.upload(EVERYONE)
    return rehearsal


@pytest.mark.parametrize(
    ("keep", "kind", "match"),
    [
        ((0, 1), BadSurvivors, "below the threshold"),
        ((), BadSurvivors, "below the threshold"),
        ((0, 1, 3, 2), MalformedMessage, "unsorted"),
        ((0, 1, 2, 2), MalformedMessage, "repeats an id"),
    ],
)
def test_a_survivor_list_that_is_cut_or_stirred_is_refused(
    uploaded: Rehearsal, keep: tuple[int, ...], kind: type[ProtocolViolation], match: str
) -> None:
    agent = uploaded.agents["a"]
    message = cut(pb.Survivors, uploaded.survivors, "manifests", keep)
    refuses(agent, lambda: agent.on_survivors(message), kind, match)


def test_a_survivor_that_never_uploaded_cannot_be_claimed(rehearsal: Rehearsal) -> None:
    rehearsal.join(EVERYONE)
    rehearsal.upload("abc")
    forged = pb.Survivors.FromString(rehearsal.survivors)
    forged.manifests.add(member="d", vector_hash=bytes(32), signature=bytes(64))
    message = forged.SerializeToString(deterministic=True)
    agents = rehearsal.agents
    confirms = confirmations(agents, dict.fromkeys("abc", message))
    for name in "abc":  # those three vouch for themselves; nobody vouches for d
        agent = agents[name]
        refuses(
            agent,
            lambda agent=agent: agent.on_confirmations(confirms),
            BadSignature,
            "manifest in the name of institution d",
        )
    refuses(agents["d"], lambda: agents["d"].on_survivors(message), BadSurvivors, "altered the upload of institution d")


def test_a_survivors_upload_cannot_be_misrepresented_to_anyone(rehearsal: Rehearsal) -> None:
    """A list with another hash for c: c does not confirm it, and what it signed does not prove it to the others."""
    rehearsal.join(EVERYONE)
    rehearsal.upload(EVERYONE)
    altered = pb.Survivors.FromString(rehearsal.survivors)
    altered.manifests[2].vector_hash = bytes(32)
    message, agents = altered.SerializeToString(deterministic=True), rehearsal.agents
    confirms = confirmations(agents, dict.fromkeys("abd", message))
    for name in "abd":
        agent = agents[name]
        refuses(
            agent,
            lambda agent=agent: agent.on_confirmations(confirms),
            BadSignature,
            "manifest in the name of institution c",
        )
    refuses(agents["c"], lambda: agents["c"].on_survivors(message), BadSurvivors, "altered the upload of institution c")


def test_an_upload_replayed_into_another_round_is_refused(consortium: Consortium, uploaded: Rehearsal) -> None:
    other = Rehearsal(consortium)
    other.join(EVERYONE)
    other.upload(EVERYONE)
    agent = other.agents["a"]
    refuses(agent, lambda: agent.on_survivors(uploaded.survivors), BadSurvivors, "altered the upload")


def test_a_second_survivor_list_is_refused(uploaded: Rehearsal) -> None:
    agent = uploaded.agents["a"]
    agent.on_survivors(uploaded.survivors)
    other = cut(pb.Survivors, uploaded.survivors, "manifests", (0, 1, 2))
    refuses(agent, lambda: agent.on_survivors(other), OutOfStep, "confirmed")


def test_a_second_list_after_reveal_is_refused(uploaded: Rehearsal) -> None:
    uploaded.confirm(EVERYONE)
    agent = uploaded.agents["a"]
    agent.on_confirmations(uploaded.confirmations)
    assert agent.state is AgentState.REVEALED
    for handle, message in (
        (agent.on_survivors, cut(pb.Survivors, uploaded.survivors, "manifests", (0, 1, 2))),
        (agent.on_confirmations, uploaded.confirmations),
    ):
        with pytest.raises(OutOfStep):
            handle(message)


@pytest.mark.parametrize(
    ("keep", "kind", "match"),
    [
        ((0, 1), BadConfirmations, "2 confirmations of the survivor list; 3 are needed"),
        ((), BadConfirmations, "0 confirmations"),
        ((0, 1, 1), MalformedMessage, "repeats an id"),
        ((1, 0, 2), MalformedMessage, "unsorted"),
    ],
)
def test_shares_are_not_revealed_without_enough_confirmations(
    uploaded: Rehearsal, keep: tuple[int, ...], kind: type[ProtocolViolation], match: str
) -> None:
    uploaded.confirm(EVERYONE)
    agent = uploaded.agents["a"]
    message = cut(pb.Confirmations, uploaded.confirmations, "confirms", keep)
    refuses(agent, lambda: agent.on_confirmations(message), kind, match)


def test_confirmations_of_another_list_do_not_count(uploaded: Rehearsal) -> None:
    """Two members are asked about one list and two about another: nobody reveals."""
    other = cut(pb.Survivors, uploaded.survivors, "manifests", (0, 1, 2))
    confirms = [
        messages.Confirm.parse(uploaded.agents[name].on_survivors(shown), name)
        for name, shown in zip(EVERYONE, (uploaded.survivors, uploaded.survivors, other, other), strict=True)
    ]
    message = messages.encode_confirmations(confirms)
    for name in EVERYONE:
        agent = uploaded.agents[name]
        refuses(agent, lambda agent=agent: agent.on_confirmations(message), BadSignature, "CONFIRM in the name")


def test_confirmations_before_the_survivors_are_refused(uploaded: Rehearsal) -> None:
    agent = uploaded.agents["a"]
    refuses(agent, lambda: agent.on_confirmations(b""), OutOfStep, "uploaded")


def test_overlapping_lists_of_survivors_and_dropouts_cannot_be_written(uploaded: Rehearsal) -> None:
    """Flower's clients took two lists, and gave both shares of a member that stood in both.

    Here there is one list, and a REVEAL has one opening per roster member: which one follows from the list.
    """
    uploaded.confirm(EVERYONE)
    reveal = uploaded.agents["a"].on_confirmations(uploaded.confirmations)
    assert len(messages.parse_reveal(reveal, "a", 4)) == len(EVERYONE)
    twice = pb.Reveal.FromString(reveal + reveal).SerializeToString(deterministic=True)
    with pytest.raises(MalformedMessage, match="exactly one share per roster member"):
        messages.parse_reveal(twice, "a", 4)

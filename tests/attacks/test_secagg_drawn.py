"""Cheating where neighbours are drawn: by a coordinator who knows the whole graph, and by members who choose badly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from harness.drawn import DEGREE, NAMES, THRESHOLD, small_graphs

from protos.v1 import secagg_pb2 as pb
from queries.errors import ProtocolViolation
from trust.secagg import AgentRound, AgentState, dealing, keys, masks, messages
from trust.secagg.drawn import pack_present
from trust.secagg.field import parse_element, reconstruct
from trust.secagg.graph import SEED_BYTES, DrawnGraph, draw
from trust.secagg.refusals import (
    BadCohort,
    BadConfirmations,
    BadDealer,
    BadRoster,
    BadShare,
    BadSignature,
    BadSurvivors,
    MalformedMessage,
    OutOfStep,
)
from trust.secagg.rehearsal import Consortium, Rehearsal

Edit = Callable[[pb.Roster], object]


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with small_graphs():
        yield


@pytest.fixture(scope="module")
def consortium() -> Consortium:
    return Consortium(NAMES)


@pytest.fixture
def rehearsal(consortium: Consortium) -> Rehearsal:
    return Rehearsal(consortium, consortium.parameters(threshold=THRESHOLD))


def refuses(agent: AgentRound, call: Callable[[], object], kind: type[ProtocolViolation], match: str = "") -> None:
    with pytest.raises(kind, match=match) as caught:
        call()
    assert caught.value.party == "coordinator"
    assert agent.state is AgentState.REFUSED
    assert (agent._dealt, agent._held, agent._shared) == (None, {}, {})


def graph_of(agent: AgentRound) -> DrawnGraph:
    assert agent._roster is not None
    topology = agent._roster.topology
    assert isinstance(topology, DrawnGraph)
    return topology


def registered(rehearsal: Rehearsal) -> bytes:
    for name in NAMES:
        rehearsal.coordinator.on_join(name, rehearsal.agents[name].join())
    return rehearsal.coordinator.close_registration()


def joined(rehearsal: Rehearsal) -> dict[str, bytes]:
    cohort = registered(rehearsal)
    for name in NAMES:
        rehearsal.coordinator.on_join(name, rehearsal.agents[name].on_cohort(cohort))
    return rehearsal.coordinator.close_joins()


def cohort_of(names: tuple[str, ...]) -> bytes:
    return pb.Cohort(present=pack_present(names, NAMES)).SerializeToString(deterministic=True)


# --- the cohort ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "kind", "match"),
    [
        (cohort_of(NAMES[1:]), BadCohort, "left institution h00 out"),
        (cohort_of(NAMES[:7]), BadCohort, "7 institutions, below the threshold"),
        (cohort_of(()), BadCohort, "0 institutions"),
        (b"", MalformedMessage, "a list of members of 0 bytes instead of 2"),
        (pb.Cohort(present=b"\xff\xff").SerializeToString(), MalformedMessage, "more members than are invited"),
        (pb.Cohort(present=b"\xff\x0f\x00").SerializeToString(), MalformedMessage, "3 bytes instead of 2"),
    ],
)
def test_a_cohort_that_is_not_one_is_refused(
    rehearsal: Rehearsal, message: bytes, kind: type[ProtocolViolation], match: str
) -> None:
    agent = rehearsal.agents["h00"]
    agent.join()
    refuses(agent, lambda: agent.on_cohort(message), kind, match)


def test_a_cohort_without_a_safe_number_of_neighbours_is_refused(rehearsal: Rehearsal) -> None:
    agent, cohort = rehearsal.agents["h00"], registered(rehearsal)
    with small_graphs(None):
        refuses(agent, lambda: agent.on_cohort(cohort), BadCohort, "no number of neighbours is safe among 12")


def test_a_cohort_counts_organisations() -> None:
    consortium = Consortium(NAMES, organisations=dict.fromkeys(NAMES[2:], "one"))
    rehearsal = Rehearsal(consortium, consortium.parameters(threshold=THRESHOLD))
    agent = rehearsal.agents["h00"]
    agent.join()
    without_h01 = tuple(name for name in NAMES if name != "h01")
    refuses(agent, lambda: agent.on_cohort(cohort_of(without_h01)), BadCohort, "2 organisations")


def test_nobody_draws_twice(rehearsal: Rehearsal) -> None:
    """A coordinator that does not like what was drawn cannot have it drawn again: not even from the same cohort."""
    agent, cohort = rehearsal.agents["h00"], registered(rehearsal)
    agent.on_cohort(cohort)
    refuses(agent, lambda: agent.on_cohort(cohort), OutOfStep, "joined")


def test_a_join_that_was_drawn_from_another_cohort_is_refused_by_all(rehearsal: Rehearsal) -> None:
    """The coordinator tells h00 of a smaller cohort, so that colluders in it are drawn more often."""
    cohort = registered(rehearsal)
    agents, coordinator = rehearsal.agents, rehearsal.coordinator
    join = agents["h00"].on_cohort(cohort_of(NAMES[:11]))
    with pytest.raises(BadSignature):
        coordinator.on_join("h00", join)
    for name in NAMES[1:]:
        coordinator.on_join(name, agents[name].on_cohort(cohort))
    rosters = coordinator.close_joins()
    public = messages.Join.parse_drawn(join, "h00", DEGREE.holders).public
    topology = graph_of_seeds(rosters["h01"], {"h00": public.graph_seed})
    for name in topology.partners("h00"):
        agent = agents[name]
        message = with_member(rosters[name], join, name, topology)
        refuses(agent, lambda agent=agent, m=message: agent.on_roster(m), BadSignature, "JOIN in the name of")


def graph_of_seeds(roster: bytes, more: dict[str, bytes]) -> DrawnGraph:
    """The graph of a roster's seeds and of some others'."""
    said = pb.Roster.FromString(roster)
    bits = int.from_bytes(said.present, "little")
    names = [name for i, name in enumerate(NAMES) if bits >> i & 1]
    seeds = {name: said.graph_seeds[i * SEED_BYTES :][:SEED_BYTES] for i, name in enumerate(names)} | more
    round_cohort = sorted(seeds)
    return DrawnGraph(NAMES, round_cohort, b"".join(seeds[name] for name in round_cohort), DEGREE, _context[0])


_context = [b""]


@pytest.fixture(autouse=True)
def _remember_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cohort's hash, which binds what is drawn, as the last agent computed it for everyone registered."""
    real = keys.cohort_hash

    def cohort_hash(round_id: bytes, present: bytes) -> bytes:
        found = real(round_id, present)
        if present == pack_present(NAMES, NAMES):
            _context[0] = found
        return found

    monkeypatch.setattr(keys, "cohort_hash", cohort_hash)


def with_member(roster: bytes, join: bytes, receiver: str, topology: DrawnGraph) -> bytes:
    """A roster that also has the member of `join`, with everything the receiver expects but a valid signature."""
    said = pb.Roster.FromString(roster)
    whole = pb.Join.FromString(join)
    member = pb.JoinPublic.FromString(whole.public_part).member
    said.present = pack_present(topology.roster, NAMES)
    said.graph_seeds = b"".join(topology.seed(name) for name in topology.roster)
    entry = pb.RosterEntry(public_part=whole.public_part, signature=whole.signature)
    if receiver in topology.holders(member):
        position, _ = topology.index(member, receiver)
        parsed = messages.Join.parse_drawn(join, member, DEGREE.holders)
        tree = dealing.share_tree(topology.holders(member), parsed.shares)
        entry.share.CopyFrom(whole.shares[position])
        entry.proof.extend(tree.proof(position))
    entries = [entry, *said.entries]
    del said.entries[:]
    said.entries.extend(sorted(entries, key=lambda e: pb.JoinPublic.FromString(e.public_part).member))
    return said.SerializeToString(deterministic=True)


# --- the roster ------------------------------------------------------------------------------------------------------


def replace_seed(member: str) -> Edit:
    def edit(roster: pb.Roster) -> None:
        at = NAMES.index(member) * SEED_BYTES
        roster.graph_seeds = roster.graph_seeds[:at] + bytes(SEED_BYTES) + roster.graph_seeds[at + SEED_BYTES :]

    return edit


def lose_share(roster: pb.Roster) -> None:
    entry = next(entry for entry in roster.entries if entry.HasField("share"))
    entry.ClearField("share")
    del entry.proof[:]


def substitute_key(roster: pb.Roster) -> None:
    public = pb.JoinPublic.FromString(roster.entries[0].public_part)
    public.round_key = bytes(range(32))
    roster.entries[0].public_part = public.SerializeToString(deterministic=True)


def foreign_share(roster: pb.Roster) -> None:
    sharing = [entry for entry in roster.entries if entry.HasField("share")]
    sharing[0].share.CopyFrom(sharing[1].share)


@pytest.mark.parametrize(
    ("edit", "kind", "match"),
    [
        (replace_seed("h00"), BadRoster, "altered what institution h00 drew"),
        (lambda r: r.entries.__delitem__(0), BadRoster, "did not send institution h00 its neighbours' JOINs"),
        (lambda r: r.entries.add().CopyFrom(r.entries[0]), MalformedMessage, "repeats an id"),
        (lose_share, BadRoster, "misrepresents what institution h.. drew"),
        (foreign_share, BadRoster, "did not deliver the share"),
        (substitute_key, BadSignature, "JOIN in the name of institution"),
        (lambda r: setattr(r, "present", pack_present(NAMES[:7], NAMES)), MalformedMessage, "graph seeds"),
        (lambda r: setattr(r, "graph_seeds", r.graph_seeds[:-1]), MalformedMessage, "graph seeds of 191 bytes"),
    ],
)
def test_a_roster_that_misrepresents_the_graph_is_refused(
    rehearsal: Rehearsal, edit: Edit, kind: type[ProtocolViolation], match: str
) -> None:
    message = pb.Roster.FromString(joined(rehearsal)["h00"])
    edit(message)
    agent = rehearsal.agents["h00"]
    refuses(agent, lambda: agent.on_roster(message.SerializeToString(deterministic=True)), kind, match)


def test_a_roster_below_the_threshold_or_without_the_receiver_is_refused(rehearsal: Rehearsal) -> None:
    rosters = joined(rehearsal)
    for name, keep, match in (
        ("h00", NAMES[:7], "7 institutions, below the threshold"),
        ("h01", tuple(n for n in NAMES if n != "h01"), "without institution h01"),
    ):
        agent, said = rehearsal.agents[name], pb.Roster.FromString(rosters[name])
        seeds = dict(zip(NAMES, [said.graph_seeds[i * 16 : i * 16 + 16] for i in range(12)], strict=True))
        said.present, said.graph_seeds = pack_present(keep, NAMES), b"".join(seeds[n] for n in keep)
        entries = [e for e in said.entries if pb.JoinPublic.FromString(e.public_part).member in keep]
        del said.entries[:]
        said.entries.extend(entries)
        message = said.SerializeToString(deterministic=True)
        refuses(agent, lambda agent=agent, m=message: agent.on_roster(m), BadRoster, match)


def test_split_views_of_what_others_drew_never_confirm(rehearsal: Rehearsal) -> None:
    """The coordinator lies to one agent about what a stranger to it drew: its hash of the roster is then its own."""
    rosters = joined(rehearsal)
    agents = rehearsal.agents
    probe = graph_of_seeds(rosters["h00"], {})
    lied_about, victim = next(
        (far, near) for near in NAMES for far in NAMES if far != near and unaffected(probe, rosters[near], near, far)
    )
    said = pb.Roster.FromString(rosters[victim])
    replace_seed(lied_about)(said)
    assert agents[victim].on_roster(said.SerializeToString(deterministic=True)) is None
    for name in NAMES:
        if name != victim:
            assert agents[name].on_roster(rosters[name]) is None
    assert agents[victim]._roster_hash != agents[lied_about]._roster_hash
    for name in NAMES:
        list(agents[name].masked_chunks(rehearsal.vectors[name]))
    sink = rehearsal.coordinator.start_upload(victim)
    sink.feed(bytes(32))
    with pytest.raises(ProtocolViolation):
        sink.finish(agents[victim].manifest())


def unaffected(graph: DrawnGraph, roster: bytes, near: str, far: str) -> bool:
    """Whether a lie about what `far` drew leaves the neighbours of `near` as they are."""
    changed = graph_of_seeds(roster, {far: bytes(SEED_BYTES)})
    return all(
        list(graph.partners(near)) == list(changed.partners(near)) and far not in tied(one, near)
        for one in (graph, changed)
    )


def tied(graph: DrawnGraph, member: str) -> set[str]:
    return {*graph.partners(member), *graph.dealers(member)}


# --- survivors -------------------------------------------------------------------------------------------------------


def list_without(rehearsal: Rehearsal, gone: set[str]) -> bytes:
    said = pb.Survivors.FromString(rehearsal.survivors)
    hashes = [said.vector_hashes[i : i + 32] for i in range(0, len(said.vector_hashes), 32)]
    kept = [(name, h) for name, h in zip(NAMES, hashes, strict=True) if name not in gone]
    return pb.Survivors(
        present=pack_present([name for name, _ in kept], NAMES), vector_hashes=b"".join(h for _, h in kept)
    ).SerializeToString(deterministic=True)


def isolating_list(rehearsal: Rehearsal) -> tuple[str, set[str]]:
    """A victim, and its partners, few enough that the others are still t: what a coordinator would claim vanished."""
    graph = graph_of(rehearsal.agents["h00"])
    victim = min(NAMES, key=lambda name: len(graph.partners(name)))
    gone = set(graph.partners(victim))
    assert len(NAMES) - len(gone) >= rehearsal.parameters.threshold
    return victim, gone


@pytest.fixture
def exposed(consortium: Consortium) -> Rehearsal:
    """A round in which some member has so few partners that a survivor list can be without all of them."""
    for _ in range(200):
        rehearsal = Rehearsal(consortium, consortium.parameters(threshold=7, length=8))
        rehearsal.join(NAMES)
        graph = graph_of(rehearsal.agents["h00"])
        if min(len(graph.partners(name)) for name in NAMES) <= 5:
            rehearsal.upload(NAMES)
            return rehearsal
    raise AssertionError("no such graph in 200")


def test_a_survivor_list_that_isolates_a_member_is_refused_by_everyone(exposed: Rehearsal) -> None:
    """The coordinator knows the graph, and claims that just those vanished with whom the victim shares masks."""
    victim, gone = isolating_list(exposed)
    message = list_without(exposed, gone)
    for name in NAMES:
        agent = exposed.agents[name]
        refuses(
            agent,
            lambda agent=agent: agent.on_survivors(message),
            BadSurvivors,
            "is left with too few of those who share its masks",
        )
    assert victim not in gone


def test_without_that_refusal_the_victims_vector_would_lie_open(
    exposed: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack is run to its end on agents that lack the one check, so that it is known what the check is for."""
    monkeypatch.setattr(DrawnGraph, "cut_off", lambda *_: ())
    victim, gone = isolating_list(exposed)
    message, agents, graph = list_without(exposed, gone), exposed.agents, graph_of(exposed.agents["h00"])
    confirms = [messages.Confirm.parse(agents[name].on_survivors(message), name) for name in NAMES]
    confirmations = messages.encode_confirmations([c for c in confirms if c.member not in gone])
    openings: dict[str, dict[int, int]] = {name: {} for name in NAMES}
    for name in NAMES:
        dealers = graph.dealers(name)
        reveal = messages.parse_reveal(agents[name].on_confirmations(confirmations), name, len(dealers))
        for dealer, opening in zip(dealers, reveal, strict=True):
            openings[dealer][graph.index(dealer, name)[0] + 1] = parse_element(opening.share)
    secrets = {
        name: reconstruct(tuple(list(shares)[: DEGREE.threshold]), list(shares.values())[: DEGREE.threshold])
        for name, shares in openings.items()
    }
    round_id, roster_hash = exposed.parameters.round_id, exposed.coordinator._roster_hash
    upload = next(data for member, step, data in exposed.received if member == victim and step == "chunk")
    publics = {n: exposed.coordinator._joins[n].public for n in NAMES}
    vector = np.frombuffer(upload, exposed.parameters.dtype).copy()
    streams = [masks.MaskStream(keys.self_mask_keys(secrets[victim], round_id, roster_hash, victim), -1)]
    for partner in graph.partners(victim):
        shared = keys.exchange(keys.round_private_key(secrets[partner], round_id, partner), publics[victim].round_key)
        pair = keys.pair_mask_keys(shared, round_id, roster_hash, victim, partner)
        streams.append(masks.MaskStream(pair, -1 if partner > victim else 1))
    masks.apply_masks(vector, streams)
    assert (vector == exposed.vectors[victim]).all()


def test_colluders_that_all_draw_a_victim_do_not_count_as_its_partners(consortium: Consortium) -> None:
    """They draw last, and choose their bytes until they drew it; a list that leaves it with them alone is refused."""
    colluders = NAMES[8:]
    for _ in range(50):
        rehearsal = Rehearsal(consortium, consortium.parameters(threshold=7))
        agents, coordinator = rehearsal.agents, rehearsal.coordinator
        cohort = registered(rehearsal)
        drawn = {}
        for name in NAMES[:8]:
            join = agents[name].on_cohort(cohort)
            coordinator.on_join(name, join)
            drawn[name] = partners_drawn(name, messages.Join.parse_drawn(join, name, DEGREE.holders).public.graph_seed)
        victims = [name for name, partners in drawn.items() if not partners & set(colluders)]
        if victims:
            break
    victim = victims[0]
    for name in colluders:
        agents[name]._random_bytes = drawing(victim, name)
        coordinator.on_join(name, agents[name].on_cohort(cohort))
    for name, roster in coordinator.close_joins().items():
        assert agents[name].on_roster(roster) is None
    assert set(colluders) <= set(graph_of(agents["h00"]).partners(victim))
    rehearsal.upload(NAMES)
    message = list_without(rehearsal, drawn[victim])
    agent = next(agents[name] for name in NAMES if name != victim)
    refuses(agent, lambda: agent.on_survivors(message), BadSurvivors, f"{victim} is left with too few")


def partners_drawn(member: str, seed: bytes) -> set[str]:
    count, position = DEGREE.holders, NAMES.index(member)
    drawn = draw(len(NAMES), position, member=member, seed=seed, count=count, context=_context[0])
    return {NAMES[i] for i in drawn[: DEGREE.partners]}


def drawing(victim: str, me: str) -> Callable[[int], bytes]:
    """Random bytes of which the first say that the victim is drawn as a partner."""
    first = True

    def random_bytes(size: int) -> bytes:
        nonlocal first
        seed = os.urandom(size)
        while first and victim not in partners_drawn(me, seed):
            seed = os.urandom(size)
        first = False
        return seed

    return random_bytes


def test_a_list_with_another_hash_for_the_receiver_or_beyond_the_roster_is_refused(rehearsal: Rehearsal) -> None:
    rehearsal.join(NAMES[:11])
    rehearsal.upload(NAMES[:11])
    honest = pb.Survivors.FromString(rehearsal.survivors)
    altered = pb.Survivors(present=honest.present, vector_hashes=bytes(32) + honest.vector_hashes[32:])
    beyond = pb.Survivors(present=pack_present(NAMES, NAMES), vector_hashes=honest.vector_hashes + bytes(32))
    short = pb.Survivors(present=honest.present, vector_hashes=honest.vector_hashes[:-1])
    few = pb.Survivors(present=pack_present(NAMES[:7], NAMES), vector_hashes=honest.vector_hashes[: 7 * 32])
    for name, said, kind, match in (
        ("h00", altered, BadSurvivors, "altered the upload of institution h00"),
        ("h01", beyond, MalformedMessage, "h11"),
        ("h02", short, MalformedMessage, "a list of vector hashes"),
        ("h03", few, BadSurvivors, "7 institutions, below the threshold"),
    ):
        agent, message = rehearsal.agents[name], said.SerializeToString(deterministic=True)
        refuses(agent, lambda agent=agent, m=message: agent.on_survivors(m), kind, match)


# --- confirmations ---------------------------------------------------------------------------------------------------


def test_only_survivors_confirmations_free_a_share(rehearsal: Rehearsal) -> None:
    """Others did not see their own upload listed: their word would let a list of members who never uploaded pass."""
    rehearsal.join(NAMES)
    rehearsal.upload(NAMES[:9])
    confirms = {
        name: messages.Confirm.parse(rehearsal.agents[name].on_survivors(rehearsal.survivors), name) for name in NAMES
    }
    mixed = messages.encode_confirmations([confirms[name] for name in (*NAMES[:7], *NAMES[9:])])
    agent = rehearsal.agents["h00"]
    refuses(agent, lambda: agent.on_confirmations(mixed), BadConfirmations, "7 confirmations of the survivor list; 8")
    enough = messages.encode_confirmations([confirms[name] for name in NAMES[:8]])
    rehearsal.agents["h11"].on_confirmations(enough)  # who did not upload still helps


def test_confirmations_of_too_few_organisations_free_no_share() -> None:
    consortium = Consortium(NAMES, organisations=dict.fromkeys(NAMES[:8], "one"))
    rehearsal = Rehearsal(consortium, consortium.parameters(threshold=THRESHOLD))
    rehearsal.join(NAMES)
    rehearsal.upload(NAMES)
    confirms = [
        messages.Confirm.parse(rehearsal.agents[name].on_survivors(rehearsal.survivors), name) for name in NAMES
    ]
    agent = rehearsal.agents["h00"]
    message = messages.encode_confirmations(confirms[:8])
    refuses(agent, lambda: agent.on_confirmations(message), BadConfirmations, "1 organisations")


def test_a_claimed_survivor_that_never_uploaded_confirms_nothing(rehearsal: Rehearsal) -> None:
    """Nobody is shown manifests here: that t survivors confirm is what proves that t uploaded."""
    rehearsal.join(NAMES)
    rehearsal.upload(NAMES[:9])
    honest = pb.Survivors.FromString(rehearsal.survivors)
    claimed = pb.Survivors(present=pack_present(NAMES, NAMES), vector_hashes=honest.vector_hashes + bytes(96))
    message = claimed.SerializeToString(deterministic=True)
    for name in NAMES[9:]:
        agent = rehearsal.agents[name]
        refuses(agent, lambda agent=agent: agent.on_survivors(message), BadSurvivors, "altered the upload")


# --- members ---------------------------------------------------------------------------------------------------------


def test_both_kinds_of_shares_of_one_member_are_never_revealed(rehearsal: Rehearsal) -> None:
    rehearsal.join(NAMES)
    rehearsal.upload(NAMES[:10])
    for name in NAMES[:10]:
        rehearsal.coordinator.on_confirm(name, rehearsal.agents[name].on_survivors(rehearsal.survivors))
    confirmations = rehearsal.coordinator.close_confirms()
    for name in NAMES[10:]:
        rehearsal.agents[name].on_survivors(rehearsal.survivors)
    graph, joins = graph_of(rehearsal.agents["h00"]), rehearsal.coordinator._joins
    for name in NAMES:
        dealers = graph.dealers(name)
        reveal = messages.parse_reveal(rehearsal.agents[name].on_confirmations(confirmations), name, len(dealers))
        for dealer, opening in zip(dealers, reveal, strict=True):
            share = joins[dealer].shares[graph.index(dealer, name)[0]]
            kind = "seed" if dealer in NAMES[:10] else "key"
            expected = share.seed_hash if kind == "seed" else share.key_hash
            assert opening.hash(kind, rehearsal.parameters.round_id, dealer=dealer, holder=name) == expected


def test_a_bad_dealer_or_a_bad_key_is_complained_of_by_those_concerned(rehearsal: Rehearsal) -> None:
    cohort = registered(rehearsal)
    agents, coordinator = rehearsal.agents, rehearsal.coordinator
    for name in NAMES:
        join = agents[name].on_cohort(cohort)
        if name == "h03":
            join = resigned(rehearsal, join, _context[0])
        coordinator.on_join(name, join)
    complaining = set()
    for name, roster in coordinator.close_joins().items():
        if name == "h03":
            continue
        complaint = agents[name].on_roster(roster)
        if complaint is not None:
            complaining.add(name)
            coordinator.on_complaint(name, complaint)
    graph = DrawnGraph(NAMES, NAMES, seeds(coordinator), DEGREE, _context[0])
    assert complaining == set(graph.partners("h03"))
    assert coordinator.accused == ("h03",)
    with pytest.raises(BadDealer, match="h03 stands at most of the complaints"):
        coordinator.close_uploads()
    again = Rehearsal(
        rehearsal.consortium, rehearsal.consortium.parameters(invited=set(NAMES) - {"h03"}, threshold=THRESHOLD)
    )
    assert (again.run() == again.expected()).all()


def seeds(coordinator: object) -> bytes:
    joins = coordinator._joins  # type: ignore[attr-defined] # the coordinator's own view
    return b"".join(joins[name].public.graph_seed for name in NAMES)


def resigned(rehearsal: Rehearsal, join: bytes, cohort_hash: bytes) -> bytes:
    """The JOIN of h03 with a round key of small order, signed by it all the same."""
    parsed = messages.Join.parse_drawn(join, "h03", DEGREE.holders)
    old = parsed.public
    public = messages.JoinPublic.make("h03", bytes(32), old.seed_commitment, old.share_root, graph_seed=old.graph_seed)
    statement = keys.drawn_join_statement(rehearsal.parameters.round_id, cohort_hash, public.data)
    signature = rehearsal.consortium.identity_keys["h03"].sign(statement)
    return messages.Join(public, signature, parsed.shares).encode()


def test_a_helpers_bad_share_is_blamed_and_skipped(rehearsal: Rehearsal) -> None:
    rehearsal.join(NAMES)
    rehearsal.upload(NAMES)
    rehearsal.confirm(NAMES)
    reveal = pb.Reveal.FromString(rehearsal.agents["h05"].on_confirmations(rehearsal.confirmations))
    reveal.openings[1].share = bytes(32)
    with pytest.raises(BadShare, match="institution h05 revealed a share that does not match"):
        rehearsal.coordinator.on_reveal("h05", reveal.SerializeToString())
    assert (rehearsal.reveal([n for n in NAMES if n != "h05"]) == rehearsal.expected()).all()
    assert list(rehearsal.coordinator.blamed) == ["h05"]


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        (lambda j: j.shares.__delitem__(0), MalformedMessage),
        (lambda j: setattr(j.shares[0], "seed_hash", bytes(32)), BadDealer),
        (lambda j: setattr(j, "signature", bytes(64)), BadSignature),
        (lambda j: setattr(j.shares[DEGREE.holders], "sealed", bytes(124)), MalformedMessage),
    ],
)
def test_a_bad_join_is_blamed_and_the_round_completes_without_it(
    rehearsal: Rehearsal, edit: Callable[[pb.Join], object], kind: type[ProtocolViolation]
) -> None:
    agents, coordinator = rehearsal.agents, rehearsal.coordinator
    cohort = registered(rehearsal)
    others = [name for name in NAMES if name != "h04"]
    join = pb.Join.FromString(agents["h04"].on_cohort(cohort))
    edit(join)
    with pytest.raises(kind):
        coordinator.on_join("h04", join.SerializeToString(deterministic=True))
    assert list(coordinator.blamed) == ["h04"]
    for name in others:
        coordinator.on_join(name, agents[name].on_cohort(cohort))
    for name, roster in coordinator.close_joins().items():
        assert agents[name].on_roster(roster) is None
    rehearsal.upload(others)
    rehearsal.confirm(others)
    assert (rehearsal.reveal(others) == rehearsal.expected()).all()


def test_a_register_in_another_name_or_unsigned_is_blamed(rehearsal: Rehearsal) -> None:
    register = rehearsal.agents["h01"].join()
    for sender, message, kind in (
        ("h00", register, MalformedMessage),
        ("h02", pb.Register(member="h02", signature=bytes(64)).SerializeToString(), BadSignature),
    ):
        with pytest.raises(kind):
            rehearsal.coordinator.on_join(sender, message)
    assert list(rehearsal.coordinator.blamed) == ["h00", "h02"]

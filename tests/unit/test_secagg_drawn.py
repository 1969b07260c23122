"""Rounds in which neighbours are drawn: exact sums whoever vanishes, small messages, steps in their order."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from harness.drawn import DEGREE, NAMES, THRESHOLD, small_graphs

from protos.v1 import secagg_pb2 as pb
from queries.errors import QuorumError
from trust.secagg import AgentState, CoordinatorState, make_parameters
from trust.secagg.bounds import degree
from trust.secagg.refusals import LateMessage, OutOfStep, UnacceptableRound
from trust.secagg.rehearsal import Consortium, Rehearsal


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with small_graphs():
        yield


@pytest.fixture(scope="module")
def consortium() -> Consortium:
    return Consortium(NAMES)


def fresh(consortium: Consortium, **changes: int) -> Rehearsal:
    return Rehearsal(consortium, consortium.parameters(threshold=THRESHOLD, **changes))


def test_everyone_answers(consortium: Consortium) -> None:
    rehearsal = fresh(consortium, length=1000)
    assert rehearsal.parameters.drawn
    assert (rehearsal.run() == rehearsal.expected()).all()
    assert rehearsal.coordinator.survivors == NAMES
    assert all(agent.state is AgentState.REVEALED for agent in rehearsal.agents.values())
    steps = [step for member, step, _ in rehearsal.received if member == "h00"]
    assert steps == ["register", "join", "chunk", "manifest", "confirm", "reveal"]


def test_the_sum_is_exact_whoever_vanishes_or_the_round_says_what_is_missing(consortium: Consortium) -> None:
    choose, sums, failures = random.Random(20240703), 0, set[str]()
    for _ in range(40):
        rehearsal = fresh(consortium, ring_bits=choose.choice((32, 64)))
        joined = choose.sample(NAMES, choose.randint(10, 12))
        uploaded = choose.sample(joined, choose.randint(8, len(joined)))
        confirmed = choose.sample(uploaded, choose.randint(THRESHOLD, len(uploaded)))
        revealed = choose.sample(joined, choose.randint(7, len(joined)))
        rehearsal.join(joined)
        try:
            rehearsal.upload(uploaded)
            rehearsal.confirm(uploaded if len(confirmed) < THRESHOLD else confirmed)
            others = [name for name in revealed if name not in confirmed]
            for name in others:  # whoever was not needed for CONFIRM can still help
                rehearsal.agents[name].on_survivors(rehearsal.survivors)
            total = rehearsal.reveal(revealed)
        except QuorumError as error:
            failures.add(error.message)
            continue
        assert rehearsal.coordinator.survivors == tuple(sorted(uploaded))
        assert (total == rehearsal.expected()).all()
        assert rehearsal.coordinator.blamed == {}
        sums += 1
    assert sums >= 20
    assert all("too few who share its masks" in why or "of the shares of institution" in why for why in failures)


def test_whoever_registers_and_does_not_join_is_nobodys_partner(consortium: Consortium) -> None:
    rehearsal = fresh(consortium)
    coordinator, agents = rehearsal.coordinator, rehearsal.agents
    for name in NAMES:
        coordinator.on_join(name, agents[name].join())
    cohort = coordinator.close_registration()
    for name in NAMES[:11]:
        coordinator.on_join(name, agents[name].on_cohort(cohort))
    for name, roster in coordinator.close_joins().items():
        assert agents[name].on_roster(roster) is None
        assert "h11" not in agents[name]._shared
    rehearsal.upload(NAMES[:11])
    rehearsal.confirm(NAMES[:11])
    assert (rehearsal.reveal(NAMES[:11]) == rehearsal.expected()).all()


def test_a_member_deals_only_to_whom_it_drew_and_masks_only_with_partners(consortium: Consortium) -> None:
    rehearsal = fresh(consortium)
    rehearsal.join(NAMES)
    for agent in rehearsal.agents.values():
        assert agent._join is not None
        assert len(agent._join.shares) == DEGREE.holders + 1
        assert len(agent._shared) < len(NAMES) - 1
        assert set(agent._shared) == set(agent._roster.topology.partners(agent._me))  # type: ignore[union-attr]


def test_ready_says_when_a_step_needs_nobody_more(consortium: Consortium) -> None:
    rehearsal = fresh(consortium)
    coordinator, agents = rehearsal.coordinator, rehearsal.agents
    assert coordinator.state is CoordinatorState.REGISTERING
    for name in NAMES:
        assert not coordinator.ready()
        coordinator.on_join(name, agents[name].join())
    assert coordinator.ready()
    cohort = coordinator.close_registration()
    for name in NAMES:
        assert not coordinator.ready()
        coordinator.on_join(name, agents[name].on_cohort(cohort))
    assert coordinator.ready()
    for name, roster in coordinator.close_joins().items():
        agents[name].on_roster(roster)
    rehearsal.upload(NAMES)
    for confirmed, name in enumerate(NAMES[:THRESHOLD]):
        assert not coordinator.ready(), confirmed
        coordinator.on_confirm(name, agents[name].on_survivors(rehearsal.survivors))
    assert coordinator.ready()
    confirmations = coordinator.close_confirms()
    revealed = 0
    for name in NAMES[:THRESHOLD]:
        if coordinator.ready():
            break
        coordinator.on_reveal(name, agents[name].on_confirmations(confirmations))
        revealed += 1
    else:
        for name in NAMES[THRESHOLD:]:
            agents[name].on_survivors(rehearsal.survivors)
            coordinator.on_reveal(name, agents[name].on_confirmations(confirmations))
    assert coordinator.ready()
    assert (coordinator.result() == rehearsal.expected()).all()
    assert revealed >= DEGREE.threshold


def test_a_slow_member_is_late_and_not_blamed(consortium: Consortium) -> None:
    rehearsal = fresh(consortium)
    coordinator, agents = rehearsal.coordinator, rehearsal.agents
    late = agents["h11"].join()
    for name in NAMES[:11]:
        coordinator.on_join(name, agents[name].join())
    cohort = coordinator.close_registration()
    with pytest.raises(LateMessage, match="h11 registered after the cohort was fixed"):
        coordinator.on_join("h11", late)
    for name in NAMES[:10]:
        coordinator.on_join(name, agents[name].on_cohort(cohort))
    coordinator.close_joins()
    with pytest.raises(LateMessage):
        coordinator.on_join("h10", agents["h10"].on_cohort(cohort))
    assert coordinator.blamed == {}


def test_confirmations_come_from_survivors_of_enough_organisations() -> None:
    organisations = dict.fromkeys(NAMES[:8], "one")
    consortium = Consortium(NAMES, organisations=organisations)
    rehearsal = Rehearsal(consortium, consortium.parameters(threshold=THRESHOLD, minimum_cohort=5))
    rehearsal.join(NAMES)
    rehearsal.upload(NAMES)
    rehearsal.confirm(NAMES)
    named = [confirm.member for confirm in pb.Confirmations.FromString(rehearsal.confirmations).confirms]
    assert len(named) == THRESHOLD
    assert set(named) > set(NAMES[8:])
    assert (rehearsal.reveal(NAMES) == rehearsal.expected()).all()


def test_too_few_of_the_cohort_end_the_round_by_name(consortium: Consortium) -> None:
    with pytest.raises(QuorumError, match="7 of 12 institutions registered, and 8 are needed"):
        fresh(consortium).join(NAMES[:7])
    rehearsal = fresh(consortium)
    rehearsal.join(NAMES)
    with small_graphs(None), pytest.raises(UnacceptableRound, match="no number of neighbours is safe"):
        fresh(consortium)
    late = fresh(consortium)
    for name in NAMES:
        late.coordinator.on_join(name, late.agents[name].join())
    with small_graphs(None), pytest.raises(QuorumError, match="12 institutions registered: too few to draw from"):
        late.coordinator.close_registration()


def test_calls_of_the_other_kind_of_round_are_out_of_step(consortium: Consortium) -> None:
    drawn = fresh(consortium).agents["h00"]
    drawn.join()
    with pytest.raises(OutOfStep, match="registered"):
        drawn.on_roster(b"")
    full = consortium.agent("h00", consortium.parameters(invited=NAMES[:4]))
    full.join()
    with pytest.raises(OutOfStep, match="joined"):
        full.on_cohort(b"")
    coordinator = Rehearsal(consortium, consortium.parameters(invited=NAMES[:4])).coordinator
    with pytest.raises(OutOfStep, match="joining"):
        coordinator.close_registration()


def whole_round(n: int, colluders: int, vanish: int) -> None:
    """A round with the real bounds, in which some vanish after JOIN and send nothing more."""
    consortium = Consortium(f"hospital-{i:04}" for i in range(n))
    parameters = make_parameters(
        membership_hash=bytes(32),
        request_id=bytes(32),
        invited=consortium.names,
        minimum_cohort=3,
        colluders=colluders,
        length=100,
        ring_bits=32,
    )
    rehearsal = Rehearsal(consortium, parameters)
    rehearsal.join(consortium.names)
    stay = random.Random(n).sample(consortium.names, n - vanish)
    rehearsal.upload(stay)
    rehearsal.confirm(stay)
    assert (rehearsal.reveal(stay) == rehearsal.expected()).all()
    assert len(rehearsal.coordinator.survivors) == n - vanish
    chosen = degree(n, colluders, rehearsal.parameters.threshold)
    assert chosen is not None
    largest = {step: 0 for _, step, _ in rehearsal.received}
    for _, step, message in rehearsal.received:
        largest[step] = max(largest[step], len(message))
    assert largest["join"] < 210 * (chosen.holders + 3)
    assert largest["reveal"] < 54 * 2 * chosen.holders
    assert max(map(len, rehearsal.rosters.values())) < 17 * n + 700 * 2 * chosen.holders
    assert len(rehearsal.survivors) < 33 * n
    assert len(rehearsal.confirmations) < 90 * rehearsal.parameters.threshold


@pytest.mark.soak
@pytest.mark.parametrize(("n", "colluders"), [(501, 1), (1000, 100), (2000, 200)])
def test_whole_rounds_of_many_with_a_tenth_vanishing(n: int, colluders: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    from trust.secagg import bounds, parameters

    monkeypatch.setattr(parameters, "LARGEST_FULL_GRAPH", 500)
    monkeypatch.setattr(parameters, "degree", bounds.degree)
    whole_round(n, colluders, n // 10)

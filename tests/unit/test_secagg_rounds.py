"""Whole rounds in one process: the sum is exact for every pattern of vanishing members, or there are too few."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest

from queries.errors import QuorumError
from trust.secagg import AgentState, CoordinatorState, default_threshold, parse_parameters
from trust.secagg.refusals import LateMessage, OutOfStep
from trust.secagg.rehearsal import Consortium, Rehearsal


def subsets(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for size in range(len(names) + 1):
        yield from itertools.combinations(names, size)


def check_every_dropout(consortium: Consortium, threshold: int, colluders: int) -> int:
    """Run every choice of who joins, uploads, confirms and reveals; return how many rounds gave a sum.

    Uploading is no condition of helping: whoever joined may confirm, and whoever confirmed may reveal.
    """
    sums = 0

    def rehearse(*steps: tuple[str, ...]) -> Rehearsal:
        rungs = range(threshold + 1, len(consortium.names) + 1)
        parameters = consortium.parameters(length=1, threshold=threshold, colluders=colluders, rungs=rungs)
        rehearsal = Rehearsal(consortium, parameters)
        for step, who in zip((rehearsal.join, rehearsal.upload, rehearsal.confirm), steps, strict=False):
            step(who)
        return rehearsal

    def fails(who: tuple[str, ...], *before: tuple[str, ...]) -> bool:
        if len(who) >= threshold:
            return False
        if len(who) == threshold - 1:  # one too few; fewer still take the same branch
            with pytest.raises(QuorumError):
                rehearse(*before, who) if len(before) < 3 else rehearse(*before).reveal(who)
        return True

    for joined in subsets(tuple(consortium.names)):
        if fails(joined):
            continue
        for uploaded in subsets(joined):
            if fails(uploaded, joined):
                continue
            for confirmed in subsets(joined):
                if fails(confirmed, joined, uploaded):
                    continue
                for revealed in subsets(confirmed):
                    if fails(revealed, joined, uploaded, confirmed):
                        continue
                    rehearsal = rehearse(joined, uploaded, confirmed)
                    total = rehearsal.reveal(revealed)
                    assert rehearsal.coordinator.survivors == uploaded
                    assert total.tolist() == rehearsal.expected().tolist()
                    opened = len(uploaded) - threshold
                    layers = [rehearsal.layer_keys.get(name, ())[:opened] for name in uploaded]
                    assert rehearsal.coordinator.layer_keys == tuple(layers)
                    assert rehearsal.coordinator.blamed == {}
                    sums += 1
    return sums


@pytest.mark.parametrize(
    ("n", "threshold", "colluders", "sums"),
    [(3, 3, 1, 1), (4, 3, 1, 49), (5, 4, 1, 71)],
)
def test_every_pattern_of_vanishing_members_gives_the_survivors_sum(
    n: int, threshold: int, colluders: int, sums: int
) -> None:
    assert check_every_dropout(Consortium("abcdef"[:n]), threshold, colluders) == sums


@pytest.mark.soak
@pytest.mark.parametrize(("n", "threshold", "colluders", "sums"), [(5, 3, 0, 1051), (6, 5, 1, 97)])
def test_every_pattern_of_vanishing_members_in_larger_rounds(n: int, threshold: int, colluders: int, sums: int) -> None:
    assert check_every_dropout(Consortium("abcdef"[:n]), threshold, colluders) == sums


def test_random_vanishing_among_fifty() -> None:
    consortium = Consortium(f"hospital-{i:02}" for i in range(50))
    choose = random.Random(20240611)
    for _ in range(2):
        rehearsal = Rehearsal(consortium, consortium.parameters(length=33, ring_bits=32))
        threshold = rehearsal.parameters.threshold
        joined = choose.sample(consortium.names, choose.randint(threshold + 4, 50))
        uploaded = choose.sample(joined, choose.randint(threshold, len(joined) - 2))
        confirmed = choose.sample(joined, choose.randint(threshold, threshold + 3))
        rehearsal.join(joined)
        rehearsal.upload(uploaded)
        rehearsal.confirm(confirmed)
        total = rehearsal.reveal(choose.sample(confirmed, threshold))
        assert rehearsal.coordinator.survivors == tuple(sorted(uploaded))
        assert (total == rehearsal.expected()).all()


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("chunk_bytes", [8, 4096, 1 << 20])
def test_the_sum_does_not_depend_on_ring_or_chunks(ring_bits: int, chunk_bytes: int) -> None:
    length = 3 if chunk_bytes == 8 else 200_001  # more than a chunk, and a short last one
    consortium = Consortium("abcd")
    rehearsal = Rehearsal(consortium, consortium.parameters(length=length, ring_bits=ring_bits))
    rehearsal.join("abcd")
    rehearsal.upload("acd", chunk_bytes=chunk_bytes)
    rehearsal.confirm("abcd")
    assert (rehearsal.reveal("abd") == rehearsal.expected()).all()


def test_the_sum_wraps_in_the_ring_and_leaves_the_vectors_as_they_were() -> None:
    rehearsal = Rehearsal(Consortium("abc"))
    rehearsal.vectors.update({name: np.full(4, 2**64 - 1, dtype=np.uint64) for name in "abc"})
    assert rehearsal.run().tolist() == [2**64 - 3] * 4
    assert all(vector.tolist() == [2**64 - 1] * 4 for vector in rehearsal.vectors.values())


def test_an_upload_that_stops_half_way_is_dropped_and_its_member_still_helps() -> None:
    consortium = Consortium("abcd")
    rehearsal = Rehearsal(consortium, consortium.parameters(length=100))
    rehearsal.join("abcd")
    sink = rehearsal.coordinator.start_upload("b")
    chunks = rehearsal.agents["b"].masked_chunks(rehearsal.vectors["b"], 80)
    sink.feed(next(chunks))
    rehearsal.upload("acd")
    assert rehearsal.coordinator.survivors == ("a", "c", "d")
    with pytest.raises(LateMessage):
        sink.feed(next(chunks))
    rehearsal.confirm("abcd")
    with pytest.raises(OutOfStep):  # the rest of the vector is not to be had any more
        next(chunks)
    assert (rehearsal.reveal("abd") == rehearsal.expected()).all()
    assert rehearsal.coordinator.blamed == {}


def test_there_is_no_manifest_before_the_last_chunk() -> None:
    consortium = Consortium("abc")
    rehearsal = Rehearsal(consortium, consortium.parameters(length=100))
    rehearsal.join("abc")
    next(rehearsal.agents["a"].masked_chunks(rehearsal.vectors["a"], 80))
    with pytest.raises(OutOfStep, match="before the last chunk"):
        rehearsal.agents["a"].manifest()


def test_a_slow_member_is_late_and_not_blamed() -> None:
    consortium = Consortium("abcd")
    rehearsal = Rehearsal(consortium)
    slow = rehearsal.agents["d"].join()
    rehearsal.join("abc")
    with pytest.raises(LateMessage):
        rehearsal.coordinator.on_join("d", slow)
    rehearsal.upload("abc")
    with pytest.raises(LateMessage):
        rehearsal.coordinator.start_upload("a")
    rehearsal.confirm("abc")
    rehearsal.reveal("abc")
    assert rehearsal.coordinator.blamed == {}


def test_ready_says_when_a_step_needs_nobody_more() -> None:
    consortium = Consortium("abcd")
    rehearsal = Rehearsal(consortium)
    coordinator, agents = rehearsal.coordinator, rehearsal.agents
    seen = []
    for name in "abcd":
        coordinator.on_join(name, agents[name].join())
        seen.append(coordinator.ready())
    for name, roster in coordinator.close_joins().items():
        assert agents[name].on_roster(roster) is None
    for name in "abcd":
        sink = coordinator.start_upload(name)
        for chunk in agents[name].masked_chunks(rehearsal.vectors[name]):
            sink.feed(chunk)
        sink.finish(agents[name].manifest())
        seen.append(coordinator.ready())
    survivors = coordinator.close_uploads()
    for name in "abc":
        coordinator.on_confirm(name, agents[name].on_survivors(survivors))
        seen.append(coordinator.ready())
    confirmations = coordinator.close_confirms()
    for name in "abc":
        coordinator.on_reveal(name, agents[name].on_confirmations(confirmations))
        seen.append(coordinator.ready())
    assert seen == [False, False, False, True] * 2 + [False, False, True] * 2
    assert (coordinator.result() == rehearsal.expected()).all()
    assert coordinator.state is CoordinatorState.FINISHED
    assert not coordinator.ready()


def test_a_round_too_small_ends_and_says_how_many_are_needed() -> None:
    rehearsal = Rehearsal(Consortium("abcd"))
    with pytest.raises(QuorumError, match="2 of 4 institutions joined, and 3 are needed"):
        rehearsal.join("ab")
    assert rehearsal.coordinator.state is CoordinatorState.FAILED
    with pytest.raises(LateMessage):
        rehearsal.coordinator.on_join("c", rehearsal.agents["c"].join())


def test_a_cohort_counts_organisations_and_not_institutions() -> None:
    consortium = Consortium("abcd", organisations={"a": "one", "b": "one"})
    rehearsal = Rehearsal(consortium)
    with pytest.raises(QuorumError, match="2 organisations joined, and the minimum cohort is 3"):
        rehearsal.join("abc")


def test_closing_takes_an_agent_out_and_drops_its_secrets() -> None:
    agent = Rehearsal(Consortium("abc")).agents["a"]
    agent.join()
    agent.close()
    assert agent.state is AgentState.CLOSED
    assert not any(
        isinstance(value, dict) and value for key, value in vars(agent).items() if key in ("_held", "_shared")
    )
    with pytest.raises(OutOfStep):
        agent.on_roster(b"")


def test_parameters_are_one_to_one_with_the_round_id() -> None:
    consortium = Consortium("abcd")
    one, two = consortium.parameters(), consortium.parameters()
    assert parse_parameters(one).encode() == one
    assert parse_parameters(one).round_id != parse_parameters(two).round_id  # the nonce


def test_the_default_threshold_is_two_thirds_and_one() -> None:
    assert [default_threshold(n) for n in (3, 4, 5, 6, 7, 10, 100)] == [3, 3, 4, 5, 5, 7, 67]


@pytest.mark.parametrize(
    "vector", [np.zeros(4, np.uint32), np.zeros(3, np.uint64), np.zeros(4, np.int64), np.zeros((2, 2))]
)
def test_a_vector_of_another_shape_is_the_callers_mistake(vector: np.ndarray) -> None:
    rehearsal = Rehearsal(Consortium("abc"))
    rehearsal.join("abc")
    with pytest.raises(ValueError, match="the round takes 4 entries"):
        rehearsal.agents["a"].masked_chunks(vector)


@pytest.mark.parametrize("chunk_bytes", [0, -8, 7, 12, (1 << 20) + 8])
def test_a_chunk_size_that_fits_no_entry_is_the_callers_mistake(chunk_bytes: int) -> None:
    rehearsal = Rehearsal(Consortium("abc"))
    rehearsal.join("abc")
    with pytest.raises(ValueError, match="multiple of 8"):
        rehearsal.agents["a"].masked_chunks(rehearsal.vectors["a"], chunk_bytes)

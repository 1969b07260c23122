"""Calls and messages in any order: an agent confirms once, reveals once, and after a refusal does nothing more."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from protos.v1 import secagg_pb2 as pb
from queries.errors import ProtocolViolation
from trust.secagg import AgentState
from trust.secagg.rehearsal import Consortium, Rehearsal
from trust.secagg.steps import AGENT_STEPS

EVERYONE = "abcd"
CONSORTIUM = Consortium(EVERYONE)
HONEST = ("join", "roster", "upload", "manifest", "survivors", "confirmations")
MOVES = (*HONEST, "other survivors", "rubbish", "close")
ENDED = {AgentState.REVEALED, AgentState.REFUSED, AgentState.CLOSED}


@settings(max_examples=150, deadline=None)
@given(
    honest=st.integers(0, len(HONEST)),
    then=st.lists(st.sampled_from(MOVES), max_size=8),
    after=st.lists(st.sampled_from(MOVES), max_size=4),
)
def test_one_confirm_and_one_reveal_whatever_the_order(honest: int, then: list[str], after: list[str]) -> None:
    """The other three members are honest, so that what the agent is shown is what a coordinator could really show."""
    rehearsal = Rehearsal(CONSORTIUM)
    agent = rehearsal.agents["a"]
    others = [name for name in EVERYONE if name != "a"]
    answers: dict[str, list[bytes]] = {}
    everything: dict[str, bytes] = {}

    def prepare() -> None:
        """Bring the others to where they can be shown what the agent has done so far."""
        coordinator = rehearsal.coordinator
        if "join" in answers and "roster" not in everything:
            coordinator.on_join("a", answers["join"][0])
            for name in others:
                coordinator.on_join(name, rehearsal.agents[name].join())
            rehearsal.rosters = coordinator.close_joins()
            for name in others:
                rehearsal.agents[name].on_roster(rehearsal.rosters[name])
            everything["roster"] = rehearsal.rosters["a"]
        if "manifest" in answers and "survivors" not in everything:
            sink = coordinator.start_upload("a")
            sink.feed(answers["upload"][0])
            sink.finish(answers["manifest"][0])
            rehearsal.upload(others)
            everything["survivors"] = rehearsal.survivors
            shorter = pb.Survivors.FromString(rehearsal.survivors)
            del shorter.manifests[1]
            everything["other survivors"] = shorter.SerializeToString(deterministic=True)
        if "survivors" in answers and "confirmations" not in everything:
            coordinator.on_confirm("a", answers["survivors"][0])
            rehearsal.confirm(others)
            everything["confirmations"] = rehearsal.confirmations

    def move(step: str) -> None:
        prepare()
        message = everything.get(step, b"rubbish")
        calls = {
            "join": agent.join,
            "roster": lambda: agent.on_roster(message),
            "upload": lambda: b"".join(agent.masked_chunks(rehearsal.vectors["a"])),
            "manifest": agent.manifest,
            "survivors": lambda: agent.on_survivors(message),
            "other survivors": lambda: agent.on_survivors(message),
            "confirmations": lambda: agent.on_confirmations(message),
            "rubbish": lambda: agent.on_survivors(b"rubbish"),
            "close": agent.close,
        }
        before = agent.state
        try:
            answer = calls[step]()
        except ProtocolViolation:
            assert agent.state is AgentState.REFUSED
        else:
            answers.setdefault(step, []).append(answer or b"")
            event = "survivors" if step == "other survivors" else step
            assert step == "close" or AGENT_STEPS[before, event] is agent.state

    for step in (*HONEST[:honest], *then, *after):
        move(step)
    assert all(len(given) == 1 for step, given in answers.items() if step != "close")
    assert len(answers.get("survivors", [])) + len(answers.get("other survivors", [])) <= 1
    if agent.state in ENDED:
        assert (agent._dealt, agent._held, agent._shared) == (None, {}, {})

"""The table of steps is what the documentation prints, and leads everywhere it should."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trust.secagg import AgentState, CoordinatorState
from trust.secagg.steps import AGENT_STEPS, COORDINATOR_STEPS

PAGE = Path(__file__).parents[2] / "docs" / "secure-aggregation.md"


@pytest.mark.parametrize(("heading", "table"), [("### Agent", AGENT_STEPS), ("### Coordinator", COORDINATOR_STEPS)])
def test_the_documentation_prints_every_step_and_no_other(heading: str, table: dict[object, object]) -> None:
    section = PAGE.read_text().split(heading, 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| ([a-z]+) \| ([a-z ]+) \| ([a-z]+) ", section, re.MULTILINE)
    printed = {tuple(row) for row in rows if row[0] != "state"}
    assert printed == {(state.value, event, after.value) for (state, event), after in table.items()}


def test_every_state_is_reached() -> None:
    agent = {state for state, _ in AGENT_STEPS} | set(AGENT_STEPS.values())
    by_ending = {AgentState.COMPLAINED, AgentState.REFUSED, AgentState.CLOSED}
    assert agent | by_ending == set(AgentState)
    coordinator = {state for state, _ in COORDINATOR_STEPS} | set(COORDINATOR_STEPS.values())
    assert coordinator | {CoordinatorState.FAILED} == set(CoordinatorState)


def test_an_ended_part_leads_nowhere() -> None:
    over = {AgentState.REVEALED, AgentState.COMPLAINED, AgentState.REFUSED, AgentState.CLOSED}
    assert not over & {state for state, _ in AGENT_STEPS}
    assert not {CoordinatorState.FINISHED, CoordinatorState.FAILED} & {state for state, _ in COORDINATOR_STEPS}

"""What a round does while it waits or works: it can be cancelled when an answer arrives, and others are served."""

from __future__ import annotations

import asyncio
import threading

import pytest

from analytics_server.coordinator.hub import AgentConnection, Hub
from analytics_server.coordinator.rounds import LARGE_ROSTER, Deadlines, Round
from trust.secagg import CoordinatorRound
from trust.secagg.rehearsal import Consortium


@pytest.mark.parametrize("ticks", range(8))
async def test_a_waiting_round_can_be_cancelled_at_any_tick_after_an_answer(ticks: int) -> None:
    institutions, hub = Consortium("abc"), Hub()
    for name in institutions.names:
        hub.register(AgentConnection(id=name, sent_size=0))
    round_ = Round(
        institutions.parameters(),
        members=institutions.members,
        hub=hub,
        deadlines=Deadlines(join=60),
        on_step=lambda *_: None,
    )
    round_.start()

    async def decided() -> None:
        raise AssertionError("nobody has decided")

    task = asyncio.create_task(round_.finish(decided))
    for _ in range(5):
        await asyncio.sleep(0)
    round_.drop("a", "gone")  # wakes the round, which has two more to wait for
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=0.5)
    if not done:  # else the test would wait for the deadline
        task.cancel()
        await asyncio.wait([task])
    assert done
    assert task.cancelled()


@pytest.mark.parametrize(("members", "meanwhile"), [(LARGE_ROSTER, False), (LARGE_ROSTER + 1, True)])
async def test_others_are_served_while_large_rosters_are_made(
    members: int, meanwhile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    institutions, served, was_served = Consortium("abc"), threading.Event(), []
    round_ = Round(
        institutions.parameters(),
        members=institutions.members,
        hub=Hub(),
        deadlines=Deadlines(),
        on_step=lambda *_: None,
    )

    def close_joins(_core: CoordinatorRound) -> dict[str, bytes]:
        was_served.append(served.wait(5 if meanwhile else 0.05))
        return {}

    monkeypatch.setattr(CoordinatorRound, "close_joins", close_joins)
    asyncio.get_running_loop().call_soon(served.set)
    assert await round_._make_rosters(members) == {}
    assert was_served == [meanwhile]

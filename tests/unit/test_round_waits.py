"""What a waiting round does when it is cancelled while an answer arrives."""

from __future__ import annotations

import asyncio

import pytest

from analytics_server.coordinator.hub import AgentConnection, Hub
from analytics_server.coordinator.rounds import Deadlines, Round
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

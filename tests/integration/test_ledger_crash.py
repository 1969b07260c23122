"""SIGKILL between any two statements of the ledger: what is found afterwards is one of the states it may be in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from analytics_client.agent.ledger import Ledger
from queries.accounting import Curve

COST = 1_000_000
# One interpreter imports everything, then forks an agent for every statement at which one is to die.
CHILD = textwrap.dedent(
    """
    import json, os, signal, sys
    from pathlib import Path
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    from analytics_client.agent.grants import Limits
    from analytics_client.agent.ledger import Ledger
    from queries.accounting import Budget, Curve

    def serve(path, fatal):
        seen = 0

        def step(*_):
            nonlocal seen
            seen += 1
            if seen == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

        for name in ("before_cursor_execute", "after_cursor_execute", "commit", "begin"):
            event.listen(Engine, name, step)
        path.parent.mkdir()
        said = os.open(path.with_name("said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        say = lambda what: os.write(said, what.encode() + b"\\n")
        limits = Limits(Budget(50, 1e-6), Budget(50, 1e-6))
        ledger = Ledger.open(path)
        for number in (1, 2):
            request, round_id = bytes([number]) * 32, bytes([number]) * 16
            ledger.reserve(request_id=request, digest=b"d", dataset="t", analyst="ada", rho_nano=COST,
                           charge=Curve.from_rho_nano(COST), budgets=limits, round_id=round_id, head=(number, b"root"))
            say(f"reserved {number}")
            if number == 1:
                ledger.upload(request, round_id)
                say("uploaded 1")
                ledger.reveal(request, round_id)
            else:
                ledger.release(request, round_id)
                say("released 2")

    ends = []
    for fatal in range(1, 1000):
        child = os.fork()
        if child == 0:
            serve(Path(sys.argv[1]) / str(fatal) / "ledger.sqlite", fatal)
            os._exit(0)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        if ends[-1] == 0:
            break
    print(json.dumps(ends))
    """
).replace("COST", str(COST))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: SIGKILL, unlike a power cut, is no different there, and syncs cost."""
    memory = Path("/dev/shm")  # noqa: S108 -- a private folder is made in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


def test_a_killed_agent_neither_loses_a_charge_nor_keeps_a_reservation(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    assert set(ends[:-1]) == {-signal.SIGKILL}
    assert len(ends) > 80
    assert all((folder / str(number)).exists() for number in range(1, len(ends) + 1))
    cost = Curve.from_rho_nano(COST)
    for number in range(1, len(ends) + 1):
        path = folder / str(number) / "ledger.sqlite"
        said = path.with_name("said").read_text().split("\n")
        with Ledger.open(path) as ledger:  # reads every page, and adds the accounts up
            states = {entry.request_id[0]: entry.state for entry in ledger.history()}
            accounts = {account.analyst: account.spent for account in ledger.accounts()}
            assert "reserved" not in states.values()
            charged = states.get(1) == "charged"
            assert accounts in ({}, dict.fromkeys(("", "ada"), cost if charged else Curve.zero()))
            assert charged or "uploaded 1" not in said
            assert not charged or "reserved 1" in said
            if "reserved 1" in said:
                assert 1 in states
                assert ledger.head()[0] >= 1
            if "released 2" in said:
                assert states[2] == "released"

"""Tethered processes end with their parent, also when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from analytics_client import tether

PARENT = """
import subprocess, sys, time
from pathlib import Path
from analytics_client import tether
state = Path(sys.argv[1])
command = tether.start(["run", "asleep:main", str(state / "started")], log=subprocess.DEVNULL, cwd=state.parent)
keeper = tether.start(["remove", str(state)], log=subprocess.DEVNULL)
while not (state / "started").exists():
    time.sleep(0.01)
print(command.pid, keeper.pid, flush=True)
time.sleep(60)
"""
ASLEEP = """
import sys, time
from pathlib import Path
def main():
    Path(sys.argv[1]).touch()
    time.sleep(60)
"""


def _eventually(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # An orphan that ended waits as a zombie where process 1 does not reap.
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_ends_and_its_folder_goes_when_the_parent_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "asleep.py").write_text(ASLEEP)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(state)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    assert not any(_gone(pid) for pid in children)
    parent.send_signal(how)
    parent.wait()
    parent.stdout.close()
    assert _eventually(lambda: all(_gone(pid) for pid in children))
    assert not state.exists()
    assert (tmp_path / "asleep.py").exists()


def test_a_tethered_command_is_what_it_says_on_a_wrong_call() -> None:
    with tether.start(["jump"], log=subprocess.PIPE) as process:
        assert process.wait(timeout=10) == 1
        assert process.stdout is not None
        assert b"usage: tether run" in process.stdout.read()

"""A writer of the log that is killed over and over, and what must hold after every death.

`appender.py` says every entry that was acknowledged. None of them may be lost, none may be there twice, and the tree
has to agree with the newest signed head.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from analytics_server.store import Store
from trust.tlog import notes
from trust.tlog.checkpoint import open_checkpoint
from trust.tlog.entries import decode
from trust.tlog.recount import Recount, blocks

APPENDER = Path(__file__).with_name("appender.py")
ORIGIN = "north/log"
LONGEST_LIFE_S = 0.12


@dataclass
class Deaths:
    """What a campaign saw. `inconsistent` counts trees that did not agree with the newest signed head."""

    tried: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    inconsistent: int = 0


def kill_often(
    store_url: str, kills: int, *, writers: int = 1, check_every: int = 1, told: Callable[[int], None] | None = None
) -> Deaths:
    """Kill a writer `kills` times at random instants; check the whole log after every `check_every` deaths.

    Of several writers, each a process, one dies after the other while the others go on.
    """
    Store.create(store_url).close()
    seed = secrets.token_bytes(32)
    verifier = notes.Verifier(ORIGIN, Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw())
    acknowledged: dict[int, str] = {}
    deaths = Deaths()
    with ExitStack() as stack:
        parents = [stack.enter_context(_parent(store_url, seed)) for _ in range(writers)]
        first = [_start(parent, f"w{place}life0") for place, parent in enumerate(parents)]
        for life in range(1, kills + 1):
            place = life % writers
            time.sleep(random.uniform(0, LONGEST_LIFE_S))
            for line in _kill(parents[place], *first[place]):
                seq, payload = line.split()
                deaths.doubled += int(seq) in acknowledged
                acknowledged[int(seq)] = payload
            deaths.tried += 1
            if writers == 1 and (deaths.tried % check_every == 0 or deaths.tried == kills):
                _check(store_url, acknowledged, verifier, deaths)
            if told is not None:
                told(deaths.tried)
            first[place] = _start(parents[place], f"w{place}life{life}")
        for parent, started in zip(parents, first, strict=True):
            for line in _kill(parent, *started):
                seq, payload = line.split()
                deaths.doubled += int(seq) in acknowledged
                acknowledged[int(seq)] = payload
            assert parent.stdin is not None
            parent.stdin.close()
    _check(store_url, acknowledged, verifier, deaths)
    deaths.acknowledged = len(acknowledged)
    return deaths


def _parent(store_url: str, seed: bytes) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(APPENDER), store_url, seed.hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def _start(parent: subprocess.Popen[str], life: str) -> tuple[int, str]:
    """Start a writer; return its process id and its first acknowledgement."""
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(f"{life}\n")
    return int(parent.stdout.readline().split()[1]), parent.stdout.readline()


def _kill(parent: subprocess.Popen[str], pid: int, first: str) -> list[str]:
    """Kill a writer; return everything that it had acknowledged."""
    assert parent.stdout is not None
    os.kill(pid, signal.SIGKILL)
    lines = [first]
    while (line := parent.stdout.readline()) != "dead\n":
        lines.append(line)
    return lines


def _check(store_url: str, acknowledged: dict[int, str], verifier: notes.Verifier, deaths: Deaths) -> None:
    store = Store.open(store_url)
    with store.read() as uow:
        rows = uow.leaves(0, 10_000_000)
        newest = uow.latest_checkpoint()
        assert newest is not None
        searchable = len(uow.leaves(0, 10_000_000, kind="log_read"))
        stored_root = uow.root()
    store.close()
    payloads = [decode(row.leaf).log_read.what for row in rows]
    deaths.doubled += len(payloads) - len(set(payloads))
    deaths.lost += sum(seq >= len(payloads) or payloads[seq] != payload for seq, payload in acknowledged.items())
    tree = Recount()
    for block in blocks(row.leaf for row in rows):
        tree.extend(block)
    head = open_checkpoint(newest.note, ORIGIN, verifier)
    deaths.inconsistent += (
        [row.seq for row in rows] != list(range(len(rows)))
        or searchable != len(rows)
        or (head.size, head.root) != (tree.size, tree.root())
        or stored_root != head.root
    )

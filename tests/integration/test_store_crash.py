"""SIGKILL at random instants: nothing acknowledged is lost, nothing doubled, the tree agrees with its signed head."""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from analytics_server.store import Store
from trust.tlog import notes
from trust.tlog.checkpoint import open_checkpoint
from trust.tlog.entries import decode
from trust.tlog.merkle import Frontier, leaf_hash

APPENDER = Path(__file__).parents[1] / "harness" / "appender.py"
ORIGIN = "north/log"
KILLS = 10


def test_killed_writer_loses_and_doubles_nothing(store_url: str) -> None:
    Store.create(store_url).close()
    seed = secrets.token_bytes(32)
    verifier = notes.Verifier(ORIGIN, Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw())
    acknowledged: dict[int, str] = {}
    with subprocess.Popen(
        [sys.executable, str(APPENDER), store_url, seed.hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        for life in range(KILLS):
            parent.stdin.write(f"life{life}\n")
            pid = int(parent.stdout.readline().split()[1])
            first = parent.stdout.readline()  # it is at work
            time.sleep(random.uniform(0, 0.12))
            os.kill(pid, signal.SIGKILL)
            lines = [first]
            while (line := parent.stdout.readline()) != "dead\n":
                lines.append(line)
            for line in lines:
                seq, payload = line.split()
                assert int(seq) not in acknowledged
                acknowledged[int(seq)] = payload
            check(store_url, acknowledged, verifier)
        parent.stdin.close()
    assert len(acknowledged) > KILLS


def check(store_url: str, acknowledged: dict[int, str], verifier: notes.Verifier) -> None:
    store = Store.open(store_url)
    with store.read() as uow:
        rows = uow.leaves(0, 1_000_000)
        newest = uow.latest_checkpoint()
        assert newest is not None
        assert len(uow.leaves(0, 1_000_000, kind="log_read")) == len(rows)
        assert uow.root() == newest.root
    store.close()
    payloads = [decode(row.leaf).log_read.what for row in rows]
    assert [row.seq for row in rows] == list(range(len(rows)))
    assert len(set(payloads)) == len(payloads), "an entry was doubled"
    for seq, payload in acknowledged.items():
        assert payloads[seq] == payload, "an acknowledged entry was lost"
    frontier = Frontier()
    for row in rows:
        frontier.append(leaf_hash(row.leaf))
    head = open_checkpoint(newest.note, ORIGIN, verifier)
    assert (head.size, head.root) == (frontier.size, frontier.root())

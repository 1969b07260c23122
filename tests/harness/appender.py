"""A program to be killed: it forks a child that appends to a log without end and says what was acknowledged.

    python appender.py URL SEED

For every line on stdin a child is forked, whose pid and then every acknowledged "seq payload" are written to stdout.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from itertools import count

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from analytics_server.audit.log import AuditLog
from analytics_server.store import Store, UnitOfWork
from protos.v1 import log_pb2
from trust.tlog import notes

ORIGIN = "north/log"


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # one write: a killed process leaves no half of a line behind


def append_for_ever(url: str, seed: bytes, life: str) -> None:
    say(f"pid {os.getpid()}")
    store = Store.open(url)
    log = AuditLog(store, notes.Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(seed)), ORIGIN)
    for number in count():
        batches = [
            [f"{life}-{number}-{unit}-{i}" for i in range(1 + (number + unit) % 4)] for unit in range(number % 3)
        ]
        batches = batches or [[f"{life}-{number}"]]
        written = store.write_all([partial(append, log, batch) for batch in batches])  # several wait for one commit
        for first, batch in zip(written, batches, strict=True):
            assert isinstance(first, int), first
            for seq, payload in enumerate(batch, first):
                say(f"{seq} {payload}")


def append(log: AuditLog, payloads: list[str], uow: UnitOfWork) -> int:
    return log.append_in(
        uow, [log_pb2.LogEntry(at_ms=1, actor="a", log_read=log_pb2.LogRead(what=payload)) for payload in payloads]
    )


def main() -> None:
    url, seed = sys.argv[1], bytes.fromhex(sys.argv[2])
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            append_for_ever(url, seed, line.strip())
        os.waitpid(child, 0)
        say("dead")


if __name__ == "__main__":
    main()

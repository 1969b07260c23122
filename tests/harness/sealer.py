"""A program that seals and expires shards in children that kill themselves at a chosen step.

    python sealer.py URL FOLDER SEED

For every line "seal|expire BEFORE_MS NOW_MS STEP" on stdin a child is forked that dies at its statement, commit or file
operation of that number; "died", "done" or "failed" is written to stdout. Not a fork of the test: that may hold gRPC.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from analytics_server.audit import sealing
from analytics_server.audit.log import AuditLog
from analytics_server.store import Store
from trust.tlog import notes

ORIGIN = "north/log"
FEW = 9
"""Entries that leave the tables in one transaction here, so that a short log takes several."""


def dying_at(last: int) -> Callable[..., None]:
    passed = 0

    def step(*_: object) -> None:
        nonlocal passed
        passed += 1
        if passed == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def around(owner: Any, name: str, step: Callable[..., None]) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        step()
        return original(*arguments, **options)

    setattr(owner, name, wrapped)


def work(url: str, folder: Path, seed: bytes, kind: str, numbers: list[int]) -> None:
    before_ms, now_ms, last = numbers
    store = Store.open(url, folder)
    log = AuditLog(store, notes.Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(seed)), ORIGIN)
    step = dying_at(last)
    sa.event.listen(store._engine, "before_cursor_execute", step)
    sa.event.listen(store._engine, "commit", step)
    for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "chmod")):
        around(owner, name, step)
    sealing.STEP = FEW
    (sealing.seal if kind == "seal" else sealing.expire)(store, log, before_ms=before_ms, now_ms=now_ms)


def main() -> None:
    url, folder, seed = sys.argv[1], Path(sys.argv[2]), bytes.fromhex(sys.argv[3])
    for line in sys.stdin:
        kind, *numbers = line.split()
        if (child := os.fork()) == 0:
            try:
                work(url, folder, seed, kind, [int(number) for number in numbers])
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        said = "died" if os.WIFSIGNALED(status) else "failed" if os.WEXITSTATUS(status) else "done"
        sys.stdout.write(f"{said}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

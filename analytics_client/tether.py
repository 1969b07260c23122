"""Processes that end when the one that started them does, however it ends.

A tethered process holds the reading end of a pipe whose writing end only its parent holds. When the parent is gone,
even by SIGKILL, the pipe reports end of file: a command ends itself, and a keeper removes the folder it watches over.
Unlike the parent-death signal of Linux this is tied to the parent's process and not to one of its threads, and works
wherever there are pipes. Must not know: what the commands do.

    python -m analytics_client.tether run MODULE:FUNCTION [ARGUMENT...]
    python -m analytics_client.tether remove FOLDER
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

GRACE_S = 2.0
"""How long an orphaned command may take to close its files before it ends regardless."""
REMOVE_WITHIN_S = 10.0
"""How long a keeper goes on removing what ending processes may still be writing."""


def start(arguments: Sequence[str], *, log: IO[bytes] | int, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start `run ...` or `remove ...` as a tethered process that writes stdout and stderr to `log`.

    It has a session of its own, so that Ctrl-C at a prompt of the parent reaches the parent alone.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "analytics_client.tether", *arguments],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        start_new_session=True,
    )


def _wait_for_end_of_parent() -> None:
    while os.read(0, 4096):
        """Bytes on the pipe mean nothing; only its end does."""


def _end_with_parent() -> None:
    _wait_for_end_of_parent()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


def _run(target: str, arguments: list[str]) -> None:
    threading.Thread(target=_end_with_parent, name="tether", daemon=True).start()
    module, _, function = target.partition(":")
    main: Callable[[], object] = getattr(importlib.import_module(module), function)
    sys.argv = [target, *arguments]
    main()


def _remove(folder: Path) -> None:
    _wait_for_end_of_parent()
    deadline = time.monotonic() + REMOVE_WITHIN_S
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def main() -> None:
    """Entry point of a tethered process."""
    match sys.argv[1:]:
        case ["run", target, *arguments]:
            _run(target, arguments)
        case ["remove", folder]:
            _remove(Path(folder))
        case _:
            sys.exit("usage: tether run MODULE:FUNCTION [ARGUMENT...] | tether remove FOLDER")


if __name__ == "__main__":
    main()

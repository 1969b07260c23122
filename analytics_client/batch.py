"""Several commands of another program in one process, as if they were typed one after the other.

Starting Python and importing what a command needs takes longer than the command; whoever runs ten of them in a row
starts one process here. It ends with its parent, because its standard input does. Must not know: what the commands do.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from types import TracebackType

from queries.errors import CohortiumError, ConfigError


class Batch:
    """A process that runs commands of a Typer app named MODULE:APP. A context manager; safe to use from threads."""

    def __init__(self, target: str) -> None:
        self._name = target
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "analytics_client.batch", target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> str:
        """Run one command and return what it prints. Raise ConfigError with the command's own words where it fails."""
        with self._lock:
            assert self._process.stdin is not None  # noqa: S101 - both were asked for above
            assert self._process.stdout is not None  # noqa: S101
            try:
                self._process.stdin.write(json.dumps(arguments) + "\n")
                self._process.stdin.flush()
                answer = self._process.stdout.readline()
            except BrokenPipeError:
                answer = ""
        if not answer:
            raise ConfigError(f"{self._name} ended while it ran {arguments[0]!r}", hint="run it by hand to see why")
        read = json.loads(answer)
        if read["error"]:
            raise ConfigError(read["error"], hint=read["hint"])
        return str(read["out"])

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process, or see that it has ended: what it can no longer read is no error here, `run` has told."""
        self._process.communicate()


def main() -> None:
    """Run commands from standard input, one JSON list of arguments a line, and answer each with a JSON object."""
    module, _, name = sys.argv[1].partition(":")
    app = getattr(import_module(module), name)
    answers = sys.stdout
    for line in sys.stdin:
        out, said = io.StringIO(), io.StringIO()
        error = hint = ""
        with redirect_stdout(out), redirect_stderr(said):
            try:
                app(args=json.loads(line), standalone_mode=False)
            except CohortiumError as raised:
                error, hint = raised.message, raised.hint
            except Exception as raised:  # wrong usage, or a fault: either way the caller is told in one line
                error = str(raised) or type(raised).__name__
        answers.write(json.dumps({"out": out.getvalue(), "error": error, "hint": hint}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

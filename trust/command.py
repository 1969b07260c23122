"""What every Cohortium command does around its work: errors in one line with the next step, never a traceback.

Server and client alike use it and may not import each other. Knows no command.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any, NoReturn

import typer

import trust.rpc  # noqa: F401 - before grpc is imported anywhere, it silences grpc's own lines on stderr
from queries.errors import CohortiumError

DEBUG = "COHORTIUM_DEBUG"
"""Environment variable; set, it adds the traceback to an error."""


def run_command(app: typer.Typer) -> NoReturn:
    """Run a Typer app and exit: 0, a CohortiumError's `exit_code`, 2 for wrong usage, 70 for a fault of ours."""
    try:
        app()
    except CohortiumError as error:
        _trace()
        _complain(error.message, error.hint)
        sys.exit(error.exit_code)
    except Exception as error:  # the last net: a fault of ours becomes one line too
        _trace()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        _complain(
            f"this is a fault in Cohortium: {type(error).__name__} at {place}", f"run it with {DEBUG}=1 and report it"
        )
        sys.exit(70)
    sys.exit(0)


def print_json(value: Any) -> None:
    """Print one JSON value for a program to read: bytes in hex, keys in the order given."""
    sys.stdout.write(json.dumps(value, indent=2, default=_plain, ensure_ascii=False) + "\n")


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _trace() -> None:
    if os.environ.get(DEBUG):
        traceback.print_exc()


def _complain(message: str, hint: str) -> None:
    sys.stderr.write(f"error: {message}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")

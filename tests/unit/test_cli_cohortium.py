"""The command `cohortium`: quick to help, sparing with imports, the same names for everybody."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import analytics_client
from analytics_client.cli import app

BIN = Path(sys.executable).parent
HEAVY = ("grpc", "pandas", "sqlglot", "cryptography", "numpy", "duckdb", "sqlalchemy", "rich.table")

AUDIT = ("log", "show", "verify", "export", "who-asked", "budget", "anomalies", "reconcile", "report")


def test_the_package_exports_what_an_analyst_needs() -> None:
    assert analytics_client.__all__ == ["connect", "sandbox"]
    assert dir(analytics_client) == ["connect", "sandbox"]
    assert callable(analytics_client.connect)
    assert callable(analytics_client.sandbox)
    with pytest.raises(AttributeError, match="no attribute 'disconnect'"):
        analytics_client.disconnect  # noqa: B018 - the access is what is tested


@pytest.mark.parametrize("module", ["analytics_client", "analytics_client.cli"])
def test_importing_the_command_imports_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_help_takes_less_than_300_milliseconds_of_the_processor() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([BIN / "cohortium", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.3


@pytest.mark.parametrize(
    "command",
    [
        [],
        *[[name] for name in ("enrol", "datasets", "describe", "explain", "query", "sandbox", "audit")],
        *[["audit", name] for name in AUDIT],
    ],
)
def test_every_command_explains_itself(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert "Usage: cohortium" in done.output


@pytest.mark.parametrize("command", ["datasets", "describe", "explain", "query", "enrol"])
def test_everything_that_prints_data_prints_json(command: str) -> None:
    assert "--json" in CliRunner().invoke(app, [command, "--help"]).output


@pytest.mark.parametrize("command", AUDIT)
def test_everything_about_the_log_prints_json(command: str) -> None:
    assert "--json" in CliRunner().invoke(app, ["audit", command, "--help"]).output

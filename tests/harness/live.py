"""What end-to-end tests share: patients to write, commands to run as a user does, a live sandbox to hold."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from analytics_client.sandboxes import Sandbox
from analytics_client.session import Session

BIN = Path(sys.executable).parent
SCHEMA = """
name = "patients"
privacy_unit = "id"
max_persons = 10000
[columns.age]
type = "integer"
lower = 0
upper = 100
nullable = false
[columns.sex]
type = "category"
categories = ["female", "male"]
nullable = false
[columns.bmi]
type = "number"
lower = 10
upper = 60
"""
ROWS = 500
"""Persons at each institution."""
BUDGET = 50.0


def write_patients(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """One CSV per institution: `ROWS` persons, half of them female, of whom the first half is 40 and the rest 60."""
    drawn = random.Random(7)
    files = []
    for name in names:
        path = folder / f"{name}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "age", "sex", "bmi"])
            for person in range(ROWS):
                bmi = round(drawn.gauss(27, 4), 1) if person % 5 else ""
                writer.writerow(
                    [f"{name}-{person}", 40 if person < ROWS / 2 else 60, ("female", "male")[person % 2], bmi]
                )
        files.append(path)
    return files


def command(*arguments: str | Path, profile: Path | None = None, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run an installed command as a user does, and return what it said."""
    environment = {name: value for name, value in os.environ.items() if name != "COHORTIUM_PROFILE"}
    if profile is not None:
        environment["COHORTIUM_PROFILE"] = str(profile)
    return subprocess.run(
        [str(BIN / str(arguments[0])), *map(str, arguments[1:])],
        input=typed,
        capture_output=True,
        text=True,
        env=environment | {"COLUMNS": "110"},
        timeout=60,
        check=False,
    )


@dataclass(frozen=True)
class Live:
    """A running sandbox, its session, and its files."""

    box: Sandbox
    session: Session
    schema: Path
    files: list[Path]

    def cohortium(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `cohortium` as the analyst."""
        return command("cohortium", *arguments, profile=self.box.analyst)

    def audit(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `cohortium audit` as the auditor."""
        return command("cohortium", "audit", *arguments, profile=self.box.auditor)


def heavy_modules(module: str) -> list[str]:
    """Import a module in a process of its own, and return what it has loaded of what takes long to load."""
    heavy = "grpc numpy pandas scipy sqlalchemy duckdb opendp torch cryptography sqlglot matplotlib"
    code = f"import sys, {module}; print(*[name for name in {heavy.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()

"""Releases of live processes in both worlds, for the audits: agents, coordinator and analyst as a user starts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analytics_client import sandbox

RHO = 0.5
_SCHEMA = """
name = "{name}"
privacy_unit = "id"
max_persons = 1000
[columns.age]
type = "integer"
lower = 0
upper = 100
"""
_HOSPITALS = ("ash", "birch", "cedar", "dogwood")
_PATIENTS = 30


def live_releases(folder: Path, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return `count` / 2 released counts in each world, less the known count of everybody else, and the rho of each."""
    worlds = []
    for world, person in (("absent", 0), ("present", 1)):
        files = []
        for number, hospital in enumerate(_HOSPITALS):
            path = folder / f"{world}-{hospital}.csv"
            patients = _PATIENTS + (person if number == 0 else 0)
            path.write_text("id,age\n" + "".join(f"{hospital}-{i},{30 + i}\n" for i in range(patients)))
            files.append(path)
        schema = folder / f"{world}.toml"
        schema.write_text(_SCHEMA.format(name=world))
        with sandbox(schema, files, epsilon=1e5) as session:
            values = [
                session.query(f"SELECT COUNT(*) AS n FROM {world}", rho=RHO).estimate("n").value
                for _ in range(count // 2)
            ]
        worlds.append(np.array(values) - len(_HOSPITALS) * _PATIENTS)
    return worlds[0], worlds[1], RHO

"""A town under attack: four hospitals, and the same patients published with and without one of them.

The datasets `absent`, `benign` and `sickly` differ in one person, the **target**, at the first hospital: not there,
there without the disease, there with it. She is the only one of her age and the only one with her diagnosis, so an
adversary knows how to single her out, which is the most that it could hope for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.consortium import Consortium, consortium

HOSPITALS = ("ash", "birch", "cedar", "dogwood")
WORLDS = ("absent", "benign", "sickly")
TARGET_AGE = 97
RARE = "kuru"
DIAGNOSES = ("asthma", "diabetes", RARE)
OTHERS = 40
"""Patients at each hospital beside the target."""
_SCHEMA = """
name = "{name}"
privacy_unit = "id"
max_persons = 1000
[columns.age]
type = "integer"
lower = 0
upper = 100
nullable = false
[columns.diagnosis]
type = "category"
categories = ["asthma", "diabetes", "kuru"]
nullable = false
[columns.ill]
type = "integer"
lower = 0
upper = 1
nullable = false
[columns.glucose]
type = "number"
lower = 2
upper = 30
nullable = false
"""


def _patients(hospital: str, world: str) -> str:
    drawn = random.Random(hospital)
    rows = [
        f"{hospital}-{i},{20 + i},{DIAGNOSES[i % 2]},{int(drawn.random() < 0.3)},{round(drawn.uniform(4, 12), 1)}"
        for i in range(OTHERS)
    ]
    if hospital == HOSPITALS[0] and world != "absent":
        rows.append(f"target,{TARGET_AGE},{RARE},{int(world == 'sickly')},9.9")
    return "\n".join(["id,age,diagnosis,ill,glucose", *rows, ""])


def true_illness(hospital: str, patient: int) -> int:
    """Return what the adversary must not learn of the others: whether a patient is ill."""
    return int(_patients(hospital, "absent").splitlines()[1 + patient].split(",")[3])


def everybodys_glucose(world: str) -> list[float]:
    """Return the glucose of every patient of a world."""
    rows = [row for hospital in HOSPITALS for row in _patients(hospital, world).splitlines()[1:]]
    return [float(row.split(",")[4]) for row in rows]


@contextmanager
def town(folder: Path, *, epsilon: float = 1000.0, copies: int = 1) -> Iterator[Consortium]:
    """Run the consortium with every world `copies` times, each with its own budget: `absent`, `absent_1`, ..."""
    names = {(world if copy == 0 else f"{world}_{copy}"): world for copy in range(copies) for world in WORLDS}
    files: dict[str, dict[str, str]] = {}
    for hospital in HOSPITALS:
        files[hospital] = {}
        for world in WORLDS:
            path = folder / f"{hospital}-{world}.csv"
            path.write_text(_patients(hospital, world))
        for name, world in names.items():
            files[hospital][name] = f'path = "{folder / f"{hospital}-{world}.csv"}"'
    schemas = [_SCHEMA.format(name=name) for name in names]
    with consortium(folder, schemas, files, epsilon=epsilon, analysts=("ada", "bob")) as running:
        yield running

"""A job file: TOML that says what `Session.train` takes. Must not know: the network, schemas."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from queries.errors import QueryError

TEXT, NUMBER, COUNT = "a text", "a number", "a whole number"
TEXTS, NUMBERS, COUNTS = "a list of texts", "a list of numbers", "a list of whole numbers"
BLOCKS = "a list of pairs of a whole number and a number"
KEYS = {
    "dataset": TEXT,
    "model": TEXT,
    "label": TEXT,
    "features": TEXTS,
    "where": TEXT,
    "event": TEXT,
    "times": NUMBERS,
    "rounds": COUNT,
    "spare_rounds": COUNT,
    "ridge": NUMBER,
    "rows_per_person": COUNT,
    "epsilon": NUMBER,
    "rho": NUMBER,
    "purpose": TEXT,
    "minimum_cohort": COUNT,
    "method": TEXT,
    "optimizer": TEXT,
    "rate": NUMBER,
    "noise_multiplier": NUMBER,
    "clip": NUMBER,
    "batch": NUMBER,
    "learning_rate": NUMBER,
    "momentum": NUMBER,
    "hidden": COUNTS,
    "image": COUNTS,
    "filters": COUNTS,
    "kernel": COUNT,
    "pool": COUNT,
    "seed": COUNT,
    "local_steps": COUNT,
    "local_rate": NUMBER,
    "proximal": NUMBER,
    "split": TEXT,
    "held_out": NUMBER,
    "clusters": COUNT,
    "trees": COUNT,
    "depth": COUNT,
    "bins": COUNT,
    "splits": TEXT,
    "smoothing": NUMBER,
    "institutions": TEXTS,
    "fraction": NUMBER,
    "package": TEXT,
    "package_sha256": TEXT,
    "blocks": BLOCKS,
    "evaluate_every": COUNT,
    "patience": COUNT,
    "round_seconds": COUNT,
}
REQUIRED = ("dataset", "model", "features")


def load(path: Path) -> dict[str, Any]:
    """Return the arguments of `Session.train` that a file states. Raise QueryError naming the key that is wrong."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise QueryError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise QueryError(f"{path.name} is not valid TOML: {error}") from error
    for key, value in raw.items():
        if key not in KEYS:
            raise QueryError(f"{path.name} has an unknown key {key!r}", hint=f"known: {', '.join(KEYS)}")
        if not _fits(value, KEYS[key]):
            raise QueryError(f"{key} in {path.name} must be {KEYS[key]}")
    for key in REQUIRED:
        if key not in raw:
            raise QueryError(f"{path.name} lacks {key}", hint=f"a job needs {', '.join(REQUIRED)}")
    return raw


def _fits(value: object, kind: str) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case "a text":
            return isinstance(value, str)
        case "a number":
            return number
        case "a whole number":
            return number and isinstance(value, int)
    if not isinstance(value, list):
        return False
    if kind == BLOCKS:
        return all(isinstance(x, list) and len(x) == 2 and _fits(x[0], COUNT) and _fits(x[1], NUMBER) for x in value)
    return all(_fits(item, {TEXTS: TEXT, NUMBERS: NUMBER, COUNTS: COUNT}[kind]) for item in value)

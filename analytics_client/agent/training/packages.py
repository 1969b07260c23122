"""Models that a steward installed: found by name, and run only where the installed files are those of the pinned wheel.

agent.toml names a package's entry point, its wheel and the wheel's SHA-256. A job names the same hash; then every file
of the wheel must be installed as it is in the wheel, and the module must be one of them, before anything is imported.
Must not know: jobs' terms, noise, the network.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from analytics_client.models import GROUP, PackageModel
from queries.errors import PolicyDenied, QueryError
from queries.training.design import Floats
from queries.training.gradients import Gradients
from queries.training.options import Package

logger = structlog.get_logger("cohortium.agent")
DIFFERS = "package hash differs"
_RULE = "models"
_LOADED: dict[tuple[str, str], Any] = {}
_LOADING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Installed:
    """A model that agent.toml allows: its entry point's name, the hex SHA-256 of its wheel, and where that is kept."""

    name: str
    sha256: str
    wheel: Path


def package_gradients(statistic: Gradients, package: Package, installed: tuple[Installed, ...]) -> PackageGradients:
    """Return what computes gradients of a package's model. Raise PolicyDenied where policy or files do not allow it."""
    allowed = next((one for one in installed if one.name == package.name), None)
    if allowed is None:
        raise PolicyDenied(
            f"no model {package.name!r} is allowed here", rule=_RULE, hint="its steward installs it and names it"
        )
    if allowed.sha256 != package.sha256:
        raise PolicyDenied(
            f"{DIFFERS}: the job names another wheel of {package.name!r} than the policy here",
            rule=_RULE,
            hint=f"allowed here: {allowed.sha256}",
        )
    build = load(allowed)
    try:
        model: PackageModel = build(statistic.design.width - 1, max(1, statistic.classes))
        counts = [int(count) for count, _ in model.blocks]
    except Exception as error:  # the package's own: data had no part in it
        logger.error("a model's package failed", package=package.name, error=type(error).__name__)
        raise QueryError(
            f"the model {package.name!r} cannot be made for these columns", hint="see what its package takes"
        ) from error
    if counts != [count for count, _ in package.blocks]:  # where they begin is for the job to say
        raise QueryError(
            f"the model {package.name!r} has {sum(counts):,} numbers, and in other blocks than the job says",
            hint="take blocks from the package, for the same columns",
        )
    return PackageGradients(statistic, model)


class PackageGradients:
    """`descent.LocalGradients` of a package's model, one row at a time."""

    def __init__(self, statistic: Gradients, model: PackageModel) -> None:
        self._statistic = statistic
        self._model = model

    def rows(self, values: Mapping[str, Floats], theta: Floats) -> NDArray[np.float32]:
        """Return one gradient a row, divided by the clip; NaN where the package gave none."""
        return self._each(values, theta.astype(np.float32)) / np.float32(self._statistic.how.clip)

    def mean(self, values: Mapping[str, Floats], theta: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean gradient of the rows that have one."""
        block = self._each(values, theta.copy())
        sound = np.asarray(np.isfinite(block).all(axis=1))
        out: NDArray[np.float32] = block[sound].sum(axis=0) / np.float32(max(1, sound.sum()))
        return out

    def _each(self, values: Mapping[str, Floats], theta: NDArray[np.float32]) -> NDArray[np.float32]:
        x = self._statistic.design.matrix(values)[:, 1:].astype(np.float32)
        y = self._statistic.label(values)
        out = np.full((len(y), self._statistic.width), np.nan, dtype=np.float32)
        theta.flags.writeable = x.flags.writeable = False
        failed = ""
        for row in range(len(y)):
            if not (np.isfinite(x[row]).all() and np.isfinite(y[row])):
                continue
            try:
                gradient = np.asarray(self._model.gradient(theta, x[row], float(y[row])), dtype=np.float32)
                if gradient.shape == theta.shape:
                    out[row] = gradient
                else:
                    failed = "shape"
            except Exception as error:  # whether a row fails must not show: it adds nothing, as if it held no number
                failed = type(error).__name__
        if failed:
            logger.error("a model's package gave no gradient for some row", error=failed)
        return out


def load(installed: Installed) -> Any:
    """Return what the entry point names, imported once, after checking every file. Raise PolicyDenied."""
    key = installed.name, installed.sha256
    with _LOADING:
        if key not in _LOADED:
            _LOADED[key] = _load(installed)
        return _LOADED[key]


def _load(installed: Installed) -> Any:
    found = tuple(entry_points(group=GROUP, name=installed.name))
    if len(found) != 1:
        raise _denied(installed, f"{'no' if not found else 'more than one'} installed package offers it")
    (entry,) = found
    files = _installed_files(entry, installed)
    _require_own(entry.module.partition(".")[0], files, installed)
    _require_own(entry.module, files, installed)
    try:
        loaded = entry.load()
    except Exception as error:
        raise _denied(installed, f"its import fails with {type(error).__name__}") from error
    origin = getattr(sys.modules[entry.module], "__file__", None)
    if origin is None or Path(origin).resolve() not in files:
        raise _denied(installed, f"{DIFFERS}: {entry.module} is imported from elsewhere")
    return loaded


def _installed_files(entry: EntryPoint, installed: Installed) -> frozenset[Path]:
    """Return the files of the wheel where they are installed, each compared with the wheel's."""
    if entry.dist is None:
        raise _denied(installed, "its package says nothing of its files")
    try:
        data = installed.wheel.read_bytes()
    except OSError as error:
        raise _denied(installed, f"{installed.wheel} cannot be read") from error
    if hashlib.sha256(data).hexdigest() != installed.sha256:
        raise _denied(installed, f"{DIFFERS}: {installed.wheel} is another file than agent.toml pins")
    files = set()
    try:
        with zipfile.ZipFile(installed.wheel) as wheel:
            for name in wheel.namelist():
                if name.endswith("/") or name.endswith(".dist-info/RECORD"):
                    continue  # an installer writes its own RECORD
                path = Path(str(entry.dist.locate_file(name))).resolve()
                if ".data/" in name or not path.is_file() or path.read_bytes() != wheel.read(name):
                    raise _denied(installed, f"{DIFFERS}: {name} is not installed as it is in the wheel")
                files.add(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise _denied(installed, f"{installed.wheel} is no wheel that can be compared") from error
    return frozenset(files)


def _require_own(module: str, files: frozenset[Path], installed: Installed) -> None:
    """Raise PolicyDenied where a module would come from elsewhere than the wheel's files."""
    spec = find_spec(module)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() not in files:
        raise _denied(installed, f"{DIFFERS}: {module} would be imported from elsewhere")


def _denied(installed: Installed, reason: str) -> PolicyDenied:
    """Tell the steward why, and the analyst what concerns him."""
    logger.error("a model cannot be used", model=installed.name, reason=reason)
    what = DIFFERS if reason.startswith(DIFFERS) else "not installed as agreed"
    return PolicyDenied(
        f"the model {installed.name!r} cannot be used here: {what}",
        rule=_RULE,
        hint="its steward finds the reason with cohortium-agent check",
    )

"""What an analyst gets: estimates with 95% intervals, what they cost, who took part, and where it is logged.

A Result is a value: everything in it was verified before it was made. It turns into text, JSON, CSV, HTML or pandas,
or a picture, and each of these is a view of the same rows. Must not know: the network, how results are verified.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analytics_client.render import percent, shown
from queries.errors import ConfigError
from queries.estimate import ARRAYS, BinEstimate, Estimate, Row, Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from analytics_client import plots


@dataclass(frozen=True, slots=True)
class Cost:
    """What a query is charged: `rho` of zero-concentrated privacy, which is `epsilon` at `delta` on its own."""

    rho: float
    epsilon: float
    delta: float

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:.3g} (rho {self.rho:.3g}, delta {self.delta:g})"


@dataclass(frozen=True, eq=False)
class Result:
    """A released answer.

    `table` holds the estimates; `question` names operations and columns without literals. `survivors` are the
    institutions whose data are in it, of `invited` that were asked. The release is entry `log_seq` of an audit log that
    had `log_size` entries when inclusion was checked.
    """

    table: Table
    dataset: str
    question: str
    request_id: str
    cost: Cost
    survivors: tuple[str, ...]
    invited: int
    log_seq: int
    log_size: int
    mock: bool = False
    """Whether this is a dry run over invented rows, and so about nobody."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The answer row by row: public keys, and an `Estimate` per output."""
        return self.table.rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the outputs in the order of the query."""
        return self.table.columns

    @property
    def participants(self) -> str:
        """Who took part, in words."""
        if self.mock:
            return f"MOCK: invented rows of {self.invited} institutions; nobody was asked"
        return f"{len(self.survivors)} of {self.invited} institutions: {', '.join(self.survivors)}"

    @property
    def logged(self) -> str:
        """Where it is logged, in words."""
        return "nothing was spent or logged" if self.mock else f"logged as entry {self.log_seq}"

    def plot(self, output: str | None = None, *, kind: plots.Kind | None = None, ax: Axes | None = None) -> Axes:
        """Draw an output with its 95% intervals and return matplotlib's axes; see `plots.plot`."""
        from analytics_client import plots

        return plots.plot(self, output, kind=kind, ax=ax)

    def save(self, path: str | Path) -> Path:
        """Write a file of the kind that its ending says: .csv, .json, .parquet, .html, .png, .svg or .pdf.

        A file that exists is replaced, once the new one is complete. Raise ConfigError for another ending, where a
        library is missing, or where the file cannot be written.
        """
        path = Path(path)
        check_writable(path)
        write = _WRITERS[path.suffix.lower()]
        part = path.with_name(f".{path.stem}.part{path.suffix}")
        try:
            write(self, part)
            part.replace(path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {(error.strerror or 'failed').lower()}") from None
        finally:
            part.unlink(missing_ok=True)
        return path

    def estimate(self, column: str, **keys: str) -> Estimate:
        """Return one number: `result.estimate("age", sex="female")`. Raise KeyError where there is no such cell."""
        wanted = tuple(keys.get(name) for name in self.table.keys)
        if len(keys) == len(wanted) and column in self.columns:
            for row in self.rows:
                value = row.values[self.columns.index(column)]
                if row.keys == wanted and isinstance(value, Estimate):
                    return value
        raise KeyError(f"no number {column!r} for {keys}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values; `to_json` and `--json` print exactly this."""
        return {
            "dataset": self.dataset,
            "question": self.question,
            "rows": [_record(self.table, row) for row in self.rows],
            "cost": {"epsilon": self.cost.epsilon, "rho": self.cost.rho, "delta": self.cost.delta},
            "survivors": list(self.survivors),
            "invited": self.invited,
            "request_id": self.request_id,
            "log": {"seq": self.log_seq, "size": self.log_size},
        } | ({"mock": True} if self.mock else {})

    def to_json(self) -> str:
        """Return `to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_csv(self) -> str:
        """Return one line a row: keys, then value, standard error, interval and noise share of every output."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self._header())
        writer.writerows(self._cells())
        return out.getvalue()

    def to_pandas(self) -> pd.DataFrame:
        """Return a frame with the columns of `to_csv`: for an output n they are n, n_se, n_low, n_high and n_noise."""
        import pandas as pd

        return pd.DataFrame(list(self._cells()), columns=self._header())

    def _header(self) -> list[str]:
        suffixes = ("", "_se", "_low", "_high", "_noise")
        return [*self.table.keys, *(f"{name}{suffix}" for name in flat_names(self.table) for suffix in suffixes)]

    def _cells(self) -> Iterator[list[str | float]]:
        for row in self.rows:
            numbers = (getattr(each, name) for each in flat_values(row) for name in ARRAYS)
            yield [*row.keys, *numbers]

    def __str__(self) -> str:
        from analytics_client.render import result_table, to_text

        return to_text(result_table(self))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.table.keys)
        share = "<th>of it noise</th>" if counts_sampling(self.table) else ""
        head += "".join(f"<th>{html.escape(name)}</th><th>95% interval</th>{share}" for name in flat_names(self.table))
        body = "".join(f"<tr>{_html_row(row, shares=share != '')}</tr>" for row in self.rows)
        notes = f"{self.participants}. {self.cost}. {self.logged}."
        return (
            f"<table><caption>{html.escape(self.question)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table><p><small>{html.escape(notes)}</small></p>"
        )


def _write_parquet(result: Result, path: Path) -> None:
    try:
        import pyarrow  # noqa: F401 -- pandas looks for it
    except ImportError:
        raise ConfigError("Parquet needs pyarrow", hint="install it: pip install pyarrow; or save as .csv") from None
    result.to_pandas().to_parquet(path, index=False)


def _write_picture(result: Result, path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    try:
        result.plot(ax=axes)
        figure.savefig(path, dpi=150)
    finally:
        pyplot.close(figure)


def _page(result: Result) -> str:
    title = html.escape(f"{result.dataset}: {result.question}")
    return f'<!doctype html><meta charset="utf-8"><title>{title}</title>{result._repr_html_()}\n'


_WRITERS: dict[str, Callable[[Result, Path], object]] = {
    ".csv": lambda result, path: path.write_text(result.to_csv(), encoding="utf-8"),
    ".json": lambda result, path: path.write_text(result.to_json() + "\n", encoding="utf-8"),
    ".parquet": _write_parquet,
    ".html": lambda result, path: path.write_text(_page(result), encoding="utf-8"),
    ".png": _write_picture,
    ".svg": _write_picture,
    ".pdf": _write_picture,
}


def check_writable(path: Path) -> None:
    """Raise ConfigError where `save` could not write this file, as far as can be told without a result."""
    if path.suffix.lower() not in _WRITERS:
        raise ConfigError(f"{path.name} has no ending that says what it is", hint=f"one of {', '.join(_WRITERS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}", hint="make it first")
    if _WRITERS[path.suffix.lower()] is _write_picture and find_spec("matplotlib") is None:
        raise ConfigError("pictures need matplotlib", hint='install it: pip install "cohortium[plot]"')


def flat_names(table: Table) -> Sequence[str]:
    """Return a name for every number of a row: an output's, or output and bin for a histogram beside other outputs."""
    names: list[str] = []
    for output in table.outputs:
        wide = output.value.ndim > 1
        names += [f"{output.name} {part.label}" for part in output.bins] if wide else [output.name]
    return names


def counts_sampling(table: Table) -> bool:
    """Return whether any error is more than the noise: then it is worth showing how much of it is."""
    return any(bool((output.noise_share < 1).any()) for output in table.outputs)


def flat_values(row: Row) -> Iterator[Estimate]:
    """Yield the numbers of a row in the order of `flat_names`."""
    for value in row.values:
        if isinstance(value, Estimate):
            yield value
        else:
            yield from (part.estimate for part in value)


def _record(table: Table, row: Row) -> dict[str, Any]:
    record: dict[str, Any] = dict(zip(table.keys, row.keys, strict=True))
    for name, value in zip(table.columns, row.values, strict=True):
        record[name] = _number(value) if isinstance(value, Estimate) else [_bin(part) for part in value]
    return record


def _bin(part: BinEstimate) -> dict[str, Any]:
    edges = {"lower": part.bin.lower, "upper": part.bin.upper} if part.bin.lower is not None else {}
    return {"bin": part.bin.label, **edges, **_number(part.estimate)}


def _number(value: Estimate) -> dict[str, float | None]:
    numbers = {name: getattr(value, name) for name in ARRAYS}
    # JSON knows no infinity and no NaN: an unbounded side of an interval is null
    return {name: number if isfinite(number) else None for name, number in numbers.items()}


def _html_row(row: Row, *, shares: bool) -> str:
    cells = "".join(f"<td>{html.escape(key)}</td>" for key in row.keys)
    for number in flat_values(row):
        value, interval = shown(number)
        cells += f'<td style="text-align:right">{value}</td><td>{interval}</td>'
        cells += f"<td>{percent(number.noise_share)}</td>" if shares else ""
    return cells

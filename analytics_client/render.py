"""Tables for people, in a terminal. Layout only: every number shown is computed elsewhere.

Rich is imported by the functions, so that this module may be imported by commands that print no table.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from math import floor, isfinite, isnan, log10
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from analytics_client.explain import Explanation
    from analytics_client.result import Result
    from analytics_client.session import Listing
    from queries.errors import CohortiumError
    from queries.estimate import Estimate
    from queries.schema import Column, Dataset

TEXT_WIDTH = 110
_MOST_DECIMALS = 6


def compact(value: float, low: float, high: float) -> tuple[str, str, str]:
    """Return a number and its interval with the digits that the interval's width warrants: two of its half."""
    half = (high - low) / 2
    decimals = _MOST_DECIMALS
    if isfinite(half) and half > 0:
        decimals = min(_MOST_DECIMALS, max(0, 1 - floor(log10(half))))
    return number(value, decimals), number(low, decimals), number(high, decimals)


def shown(estimate: Estimate) -> tuple[str, str]:
    """Return an estimate and its interval in words; what its dataset does not show is "withheld"."""
    if isnan(estimate.value):
        return "withheld", ""
    value, low, high = compact(estimate.value, estimate.low, estimate.high)
    return value, f"{low} … {high}"


def number(value: float, decimals: int) -> str:
    """Return a number with thousands separators; never a minus before a zero."""
    text = f"{value:,.{decimals}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text


def percent(share: float) -> str:
    """Return a share in percent; nothing where there is none."""
    return f"{100 * share:.0f}%" if isfinite(share) else ""


def grid(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", notes: Sequence[str] = ()
) -> RenderableType:
    """Return a table of text with lines below it. A column whose name starts with ">" is set flush right."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=box.SIMPLE_HEAD, show_header=any(columns))
    for column in columns:
        right = column.startswith(">")
        table.add_column(Text(column.removeprefix(">")), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text, because names and messages may contain what rich reads as markup
    above = [Text(title, style="bold")] if title else []
    return Group(*above, table, *(Text(note, style="dim") for note in notes))


def result_table(result: Result) -> RenderableType:
    """Return an answer with its intervals."""
    from analytics_client.result import counts_sampling, flat_names, flat_values

    columns, shares = list(result.table.keys), counts_sampling(result.table)
    for name in flat_names(result.table):
        columns += [f">{name}", "95% interval", *([">of it noise"] if shares else [])]
    rows = []
    for row in result.rows:
        cells = list(row.keys)
        for estimate in flat_values(row):
            cells += [*shown(estimate), *([percent(estimate.noise_share)] if shares else [])]
        rows.append(cells)
    notes = [result.participants, f"{result.cost} · {result.logged}"]
    return grid(columns, rows, title=f"{result.dataset}: {result.question}", notes=notes)


def explanation_table(explanation: Explanation) -> RenderableType:
    """Return what a query would disclose and cost."""
    return grid(["", ""], explanation.lines(), title=f"{explanation.dataset}: {explanation.question}")


def datasets_table(listings: Iterable[Listing]) -> RenderableType:
    """Return the published datasets and who serves each now."""
    rows = [
        [
            item.dataset.name,
            item.dataset.description,
            str(len(item.dataset.columns)),
            ", ".join(item.serving) or "nobody",
        ]
        for item in listings
    ]
    return grid(["dataset", "description", ">columns", "served now by"], rows)


def schema_table(dataset: Dataset) -> RenderableType:
    """Return the published columns of a dataset."""
    rows = []
    for column in dataset.columns:
        record = column_record(column)
        allowed = record.get("categories") or [f"{record['lower']:g}", f"{record['upper']:g}"]
        values = ", ".join(allowed) if "categories" in record else " to ".join(allowed)
        rows.append(
            [column.name, record["type"], values, column.unit, "yes" if column.nullable else "no", column.description]
        )
    persons = f"privacy unit {dataset.privacy_unit}" if dataset.privacy_unit else "every row is another person"
    if dataset.smallest_count:
        persons += f"; groups and bins with a noisy count below {dataset.smallest_count:,} are not shown"
    limit = f"at most {dataset.max_rows} {'row' if dataset.max_rows == 1 else 'rows'} a person"
    return grid(
        ["column", "type", "published values", "unit", "may be missing", "description"],
        rows,
        title=f"{dataset.name}: {dataset.description}" if dataset.description else dataset.name,
        notes=[f"{persons}, {limit} · delta {dataset.delta:g}"],
    )


def listing_record(item: Listing) -> dict[str, Any]:
    """Return a dataset's entry in the list as plain values."""
    return {
        "name": item.dataset.name,
        "description": item.dataset.description,
        "schema_hash": item.schema_hash.hex(),
        "serving": list(item.serving),
    }


def dataset_record(dataset: Dataset) -> dict[str, Any]:
    """Return a published description as plain values."""
    return {
        "name": dataset.name,
        "description": dataset.description,
        "privacy_unit": dataset.privacy_unit,
        "max_rows": dataset.max_rows,
        "max_institutions_per_person": dataset.max_institutions_per_person,
        "max_persons": dataset.max_persons,
        "delta": dataset.delta,
        "smallest_count": dataset.smallest_count,
        "columns": [column_record(column) for column in dataset.columns],
    }


def column_record(column: Column) -> dict[str, Any]:
    """Return a published column as plain values."""
    from queries.schema import Numeric

    record: dict[str, Any] = {"name": column.name}
    if isinstance(column.kind, Numeric):
        record |= {
            "type": "integer" if column.kind.integer else "number",
            "lower": column.kind.lower,
            "upper": column.kind.upper,
        }
    else:
        record |= {"type": "category", "categories": list(column.kind.keys)}
    return record | {"unit": column.unit, "nullable": column.nullable, "description": column.description}


def refusal_lines(error: CohortiumError) -> list[str]:
    """Return who refused a request, under which rule, and what it cost; nothing where nobody refused."""
    lines = [f"{r.institution} refused under {r.rule!r}: {r.message}" for r in error.refusals]
    if error.charged:
        return [*lines, "Count the budget as spent: shares may have been revealed."]
    return [*lines, "Nothing was spent."] if lines else []


def to_text(renderable: RenderableType, *, width: int = TEXT_WIDTH) -> str:
    """Return a renderable as plain text without colour."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)  # noqa: S101 - it was just made
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())


def stdout() -> Console:
    """Return a console on standard output that keeps full width when its output is read by a program."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=TEXT_WIDTH)

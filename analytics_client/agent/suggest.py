"""A first draft of a schema file from a data file, for a steward to review: `cohortium-agent suggest-schema`.

Bounds come from a table of what is clinically plausible, by the column's name. Whatever had to come from the data
itself (categories, bounds of an unknown column) is marked REVIEW, because a published description must not be read from
data. The draft stays on this machine. Must not know: the network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from queries.errors import DataError
from queries.schema import NAME, OTHER

LOOKED_AT = 200_000
"""Rows of the file that are looked at."""
MOST_CATEGORIES = 50
FITS = 0.9
"""Share of a column's numbers that must lie in a known range for it to be proposed."""
FEW_NUMBERS = 10
"""Whole numbers of at most so many values are taken for codes."""
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-", ".", "missing"})
_PERSON = re.compile(
    r"(patient|person|subject|participant|pat|case|member|study)?_?(id|no|nr|number|key|code)|mrn|pid|nhs_?number|ssn"
)
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([ T].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}")


@dataclass(frozen=True, slots=True)
class Range:
    """What a measurement plausibly is: bounds in a unit. Wide, because what lies beyond is clipped."""

    names: str
    lower: float
    upper: float
    unit: str
    description: str
    integer: bool = False


RANGES = (
    Range(r"age|alter|age_?(at_?)?\w*(years|diagnosis|admission|entry)?", 0, 120, "years", "age", integer=True),
    Range(r"(year|yob|birth_?year|year_?of_?birth)", 1900, 2100, "", "calendar year", integer=True),
    Range(r"\w*bmi\w*|body_?mass_?index", 10, 80, "kg/m2", "body mass index"),
    Range(r"height\w*|body_?height|stature", 40, 230, "cm", "height"),
    Range(r"weight\w*|body_?weight", 0.3, 300, "kg", "weight"),
    Range(r"waist\w*|hip\w*", 30, 250, "cm", "circumference"),
    Range(r"sbp|sys\w*(bp|pressure)?|trestbps|rest_?bp\w*", 40, 300, "mmHg", "systolic blood pressure"),
    Range(r"dbp|dia\w*(bp|pressure)?", 20, 200, "mmHg", "diastolic blood pressure"),
    Range(r"hr|heart_?rate|pulse|thalach|max_?hr", 20, 250, "1/min", "heart rate"),
    Range(r"rr|resp\w*_?rate", 4, 80, "1/min", "respiratory rate"),
    Range(r"spo2|o2_?sat\w*|sao2", 40, 100, "%", "oxygen saturation"),
    Range(r"temp(erature)?(_c)?", 25, 45, "degrees C", "body temperature"),
    Range(r"hba1c\w*", 3, 20, "%", "glycated haemoglobin"),
    Range(r"gluc\w*|lab_gluc\w*|\w*glucose\w*", 1, 40, "mmol/l", "glucose"),
    Range(r"chol(esterol)?|lab_tsc|tot\w*_?chol\w*", 1, 20, "mmol/l", "total cholesterol"),
    Range(r"\w*hdl\w*", 0.1, 6, "mmol/l", "HDL cholesterol"),
    Range(r"\w*ldl\w*", 0.1, 15, "mmol/l", "LDL cholesterol"),
    Range(r"\w*trig\w*", 0.1, 30, "mmol/l", "triglycerides"),
    Range(r"creat\w*", 10, 2000, "umol/l", "creatinine"),
    Range(r"gluc\w*|lab_gluc\w*|\w*glucose\w*", 20, 800, "mg/dl", "glucose"),
    Range(r"chol(esterol)?|lab_tsc|tot\w*_?chol\w*", 40, 800, "mg/dl", "total cholesterol"),
    Range(r"\w*hdl\w*", 5, 200, "mg/dl", "HDL cholesterol"),
    Range(r"\w*ldl\w*", 10, 600, "mg/dl", "LDL cholesterol"),
    Range(r"\w*trig\w*", 10, 3000, "mg/dl", "triglycerides"),
    Range(r"creat\w*", 0.1, 25, "mg/dl", "creatinine"),
    Range(r"egfr|gfr", 0, 200, "ml/min/1.73m2", "glomerular filtration rate"),
    Range(r"urea|bun", 0.5, 80, "mmol/l", "urea"),
    Range(r"hb|h(a)?emoglobin|hgb", 2, 25, "g/dl", "haemoglobin"),
    Range(r"wbc|leu[kc]o\w*", 0.1, 200, "10^9/l", "leucocytes"),
    Range(r"plt|platelets?|thrombo\w*", 1, 2000, "10^9/l", "platelets"),
    Range(r"na|sodium", 100, 180, "mmol/l", "sodium"),
    Range(r"k|potassium", 1, 10, "mmol/l", "potassium"),
    Range(r"calcium", 0.5, 5, "mmol/l", "calcium"),
    Range(r"alb(umin)?", 5, 70, "g/l", "albumin"),
    Range(r"bili\w*", 0, 800, "umol/l", "bilirubin"),
    Range(r"al(a)?t|as(a)?t|gpt|got|ggt|alp", 1, 10_000, "U/l", "liver enzyme"),
    Range(r"crp", 0, 600, "mg/l", "C-reactive protein"),
    Range(r"inr", 0.5, 20, "", "international normalised ratio"),
    Range(r"los|length_?of_?stay", 0, 365, "days", "length of stay"),
    Range(r"(follow_?up|surv\w*|fu)?_?(time|days)|futime", 0, 20_000, "days", "time"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Column:
    local: str
    name: str
    values: pd.Series  # stripped texts, missing ones left out
    rows: int

    @property
    def nullable(self) -> bool:
        return len(self.values) < self.rows


def suggest(path: Path, dataset: str = "") -> str:
    """Return the text of a schema file for a CSV or Parquet file.

    Raise DataError where the file cannot be read, naming no value.
    """
    table = _read(path)
    if table.empty:
        raise DataError(f"{path.name} has no rows", hint="suggest from a file with data")
    columns = list(_columns(table))
    person = _person(columns)
    lines = [
        f"# A draft from {path.name}, not to be published as it is: a published description says nothing that was read",
        "# from data. Go through every REVIEW, remove this header, then: cohortium-agent check DIR --schema THIS_FILE",
        "",
        f"name = {_text(_name(dataset or path.stem))}",
        'description = ""                  # REVIEW: one line for people',
        *_about_persons(person, len(table)),
        "max_persons = 10_000_000          # a public upper bound on persons in the whole consortium",
        "delta = 1e-6",
    ]
    for column in columns:
        if column is not person:
            lines += ["", *_described(column)]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            from pyarrow import parquet

            batches = parquet.ParquetFile(path).iter_batches(batch_size=LOOKED_AT)
            first = next(iter(batches), None)
            return pd.DataFrame() if first is None else first.to_pandas().astype(object)
        with path.open(encoding="utf-8-sig", newline="") as text:
            return pd.read_csv(text, dtype=str, keep_default_na=False, nrows=LOOKED_AT, sep=None, engine="python")
    except UnicodeDecodeError:
        raise DataError(f"{path.name} is not UTF-8 text", hint="export it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {(error.strerror or 'failed').lower()}") from None
    except Exception as error:  # parsers have many kinds of errors, and their texts quote the data
        failure = DataError(
            f"{path.name} is no table that can be read ({type(error).__name__})", hint="CSV with a header, or Parquet"
        )
    raise failure


def _columns(table: pd.DataFrame) -> Iterator[_Column]:
    taken: set[str] = set()
    for number, local in enumerate(table.columns):
        name = _name(str(local)) if not str(local).startswith("Unnamed: ") else f"column_{number + 1}"
        while name in taken:
            name = f"{name[:60]}_{len(taken)}"
        taken.add(name)
        raw = table[local]
        texts = raw[raw.notna()].map(_plain)
        given = texts[~texts.str.lower().isin(_MISSING)] if len(texts) else texts
        yield _Column(str(local), name, given, len(raw))


def _plain(value: object) -> str:
    """A value as CSV would have it: 1 and not 1.0, true and not True."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _name(local: str) -> str:
    """A schema's name for a local one: lower-case letters, digits and _."""
    name = re.sub(r"[^a-z0-9]+", "_", local.strip().lower()).strip("_")
    name = name if name[:1].isalpha() else f"c_{name}".rstrip("_")
    return name[:63] if NAME.fullmatch(name[:63]) else "column"


def _person(columns: Iterable[_Column]) -> _Column | None:
    """The column that most looks as if it named persons: by its name, and with about as many values as rows."""

    def many(column: _Column) -> bool:
        return column.values.nunique() > max(1, len(column.values) // 20) and not column.nullable

    named = [c for c in columns if _PERSON.fullmatch(c.name) and many(c)]
    if named:
        return min(named, key=lambda c: (not c.name.startswith(("patient", "person", "subject")), -c.values.nunique()))
    nameless = [c for c in columns if c.local.startswith("Unnamed: ") and c.values.is_unique and not c.nullable]
    return nameless[0] if nameless else None


def _about_persons(person: _Column | None, rows: int) -> list[str]:
    if person is None:
        return [
            "# REVIEW: no column looks as if it named persons. As it stands every row counts as another person: if one",
            '# can have several rows, name the column that tells persons apart: privacy_unit = "..."',
            "max_rows = 1",
        ]
    several = person.values.nunique() < rows
    note = "REVIEW: persons here have several rows: how many may count?" if several else "REVIEW: rows of one person"
    return [
        f"privacy_unit = {_text(person.name)}    # REVIEW: does it name the person?",
        f"max_rows = 1                      # {note}",
    ]


def _described(column: _Column) -> list[str]:
    head = [f"[columns.{column.name}]"]
    tail = (
        []
        if column.nullable
        else ["nullable = false                  # REVIEW: no value is missing here; is it so everywhere?"]
    )
    if column.values.empty:
        return [f"# {column.name}: left out, it has no values"]
    numbers = pd.to_numeric(column.values, errors="coerce")
    numeric = bool(numbers.notna().all()) and not _codes(column, numbers)
    if numeric:
        return [*head, *_numeric(column, numbers[np.isfinite(numbers)]), *tail]
    distinct = sorted(set(column.values), key=_order)
    usable = [text for text in distinct if text.isprintable() and len(text) <= 200 and text != OTHER]
    apart = len(distinct) == len(column.values) > 2
    few = len(distinct) <= FEW_NUMBERS or len(distinct) < len(column.values) / 5
    if usable and few and not apart and len(distinct) <= MOST_CATEGORIES:
        listed = ", ".join(map(_text, usable))
        return [
            *head,
            'type = "category"',
            f"categories = [{listed}]    # REVIEW: from the data: publish the code list, not what occurs here",
            "other = false                     # REVIEW: true counts whatever is not listed",
            *tail,
        ]
    why = "dates" if column.values.str.fullmatch(_DATE).all() else "text with many different values"
    return [f"# {column.name}: left out, it holds {why}"]


def _codes(column: _Column, numbers: pd.Series) -> bool:
    """Whether numbers are rather codes: a few small whole ones, under a name that is no measurement's."""
    whole = bool((numbers == np.floor(numbers)).all())
    few = column.values.nunique() <= FEW_NUMBERS and numbers.abs().max() < 1000
    return whole and few and _known(column.name, numbers) is None


def _known(name: str, numbers: pd.Series) -> Range | None:
    """The first range of that name, by unit, in which nine of ten numbers lie."""

    def holds(each: Range) -> bool:
        return float(((numbers >= each.lower) & (numbers <= each.upper)).mean()) >= FITS

    return next((each for each in RANGES if re.fullmatch(each.names, name) and holds(each)), None)


def _numeric(column: _Column, numbers: pd.Series) -> list[str]:
    whole = bool((numbers == np.floor(numbers)).all())
    known = _known(column.name, numbers)
    if known is not None:
        units = [each.unit for each in RANGES if each.names == known.names]
        doubt = f"    # REVIEW: or {' or '.join(u for u in units if u != known.unit)}?" if len(units) > 1 else ""
        return [
            f"type = {_text('integer' if whole and known.integer else 'number')}",
            f"description = {_text(known.description)}",
            *([f"unit = {_text(known.unit)}{doubt}"] if known.unit else []),
            f"lower = {_bound(known.lower)}",
            f"upper = {_bound(known.upper)}",
        ]
    low, high = (float(numbers.quantile(q)) for q in (0.01, 0.99)) if len(numbers) else (0.0, 1.0)
    lower, upper = _outward(low, high)
    return [
        f"type = {_text('integer' if whole else 'number')}",
        f"lower = {_bound(lower)}    # REVIEW: both bounds come from the data: take them from what is publicly known",
        f"upper = {_bound(upper)}    # REVIEW",
    ]


def _outward(low: float, high: float) -> tuple[float, float]:
    """Bounds of one significant digit around a range, far enough from it to tell little of it."""

    def up(value: float) -> float:
        if value <= 0:
            return 0.0
        unit = 10.0 ** np.floor(np.log10(value))
        return float(next(step * unit for step in (2, 5, 10, 20) if step * unit > value))

    lower, upper = -up(-low), up(high)
    return (lower, upper) if lower < upper else (lower, lower + 1.0)


def _bound(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _order(text: str) -> tuple[bool, float, str]:
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a JSON string of printable text is a TOML basic string

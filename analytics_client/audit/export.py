"""Exports: JSON lines for programs, SQLite for people (it opens in Datasette), CSV and FHIR for other systems.

The first two keep the exact bytes that were hashed and signed beside readable columns, so they can be verified years
later. All are written beside their target and moved there when complete. Must not know: who asks for them.
"""

from __future__ import annotations

import base64
import binascii
import csv
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from analytics_client.audit import fhir
from analytics_client.audit.history import Entry, Gone, History
from queries.errors import ConfigError, LogError
from trust.tlog import checkpoint, entries, notes
from trust.tlog.merkle import cover, leaf_hash

FORMAT = "cohortium-audit-log"
VERSION = 1
_COLUMNS = tuple(field.name for field in fields(entries.Columns))

_SCHEMA = """
CREATE TABLE audit_entry (seq INTEGER PRIMARY KEY, leaf BLOB NOT NULL, leaf_hash BLOB NOT NULL);
CREATE TABLE checkpoint (size INTEGER, root BLOB NOT NULL, note BLOB NOT NULL);
CREATE TABLE membership (epoch INTEGER PRIMARY KEY, envelope BLOB NOT NULL);
CREATE TABLE peak (level INTEGER, idx INTEGER, hash BLOB NOT NULL, PRIMARY KEY (level, idx)) WITHOUT ROWID;
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY REFERENCES audit_entry (seq), at TEXT, at_ms INTEGER, kind TEXT, actor TEXT, analyst TEXT,
    purpose TEXT, dataset TEXT, institution TEXT, request_id TEXT, outcome TEXT, rho_nano INTEGER, sentence TEXT,
    event TEXT
);
CREATE INDEX entries_by_kind ON entries (kind);
CREATE INDEX entries_by_actor ON entries (actor);
CREATE INDEX entries_by_dataset ON entries (dataset);
CREATE INDEX entries_by_request ON entries (request_id);
"""


def write_json_lines(history: History, path: Path) -> int:
    """Write one JSON object a line: a header, memberships, entries, signed heads. Return the count of entries."""
    count = 0
    with _replacing(path) as target, target.open("w", encoding="utf-8") as file:
        gone = {"first": history.gone.size, "peaks": [peak.hex() for peak in history.gone.peaks]}
        _line(file, {"format": FORMAT, "version": VERSION, **(gone if history.gone.size else {})})
        for envelope in history.memberships:
            _line(file, {"membership": base64.b64encode(envelope).decode()})
        for entry in history.entries:
            _line(file, {"seq": entry.seq, "leaf": base64.b64encode(entry.leaf).decode(), **readable(entry)})
            count += 1
        for note in history.checkpoints:
            _line(file, {"checkpoint": note.decode(errors="replace")})
        file.flush()
        os.fsync(file.fileno())
    return count


def read_json_lines(path: Path) -> History:
    """Read such a file back; only the exact bytes count. Raise ConfigError where it is none."""
    found: list[Entry] = []
    checkpoints: list[bytes] = []
    memberships: list[bytes] = []
    try:
        with path.open(encoding="utf-8") as file:
            header = json.loads(file.readline() or "null")
            if not isinstance(header, dict) or (header.get("format"), header.get("version")) != (FORMAT, VERSION):
                raise ConfigError(f"{path} is no export of an audit log", hint="make one: cohortium audit export")
            gone = Gone(int(header.get("first", 0)), tuple(bytes.fromhex(peak) for peak in header.get("peaks", ())))
            for line in file:
                record = json.loads(line)
                if "leaf" in record:
                    found.append(Entry(int(record["seq"]), base64.b64decode(record["leaf"], validate=True)))
                elif "checkpoint" in record:
                    checkpoints.append(str(record["checkpoint"]).encode())
                elif "membership" in record:
                    memberships.append(base64.b64decode(record["membership"], validate=True))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise ConfigError(f"{path} is damaged", hint="export it again") from error
    return History(found, checkpoints, memberships, gone)


def write_sqlite(history: History, path: Path) -> int:
    """Write a history as an SQLite database with readable columns in `entries`. Return the entries' count."""
    count = 0
    with _replacing(path) as target, closing(sqlite3.connect(target)) as connection:
        connection.executescript(_SCHEMA)
        for number, envelope in enumerate(history.memberships, 1):
            connection.execute("INSERT INTO membership VALUES (?, ?)", (number, envelope))
        for entry in history.entries:
            connection.execute(
                "INSERT INTO audit_entry VALUES (?, ?, ?)", (entry.seq, entry.leaf, leaf_hash(entry.leaf))
            )
            row = {"seq": entry.seq, **dict.fromkeys(_COLUMNS), **readable(entry)}
            row["event"] = json.dumps(row["event"], ensure_ascii=False) if row.get("event") is not None else None
            names = ", ".join(row)
            marks = ", ".join(f":{name}" for name in row)
            connection.execute(f"INSERT INTO entries ({names}) VALUES ({marks})", row)  # noqa: S608 - names from here
            count += 1
        peaks = zip(cover((0, history.gone.size)), history.gone.peaks, strict=False)
        connection.executemany("INSERT INTO peak VALUES (?, ?, ?)", [(*node, value) for node, value in peaks])
        for note in history.checkpoints:
            connection.execute("INSERT INTO checkpoint VALUES (?, ?, ?)", (*_head(note), note))
        connection.commit()
    return count


def write_csv(history: History, path: Path) -> int:
    """Write the readable columns as CSV (RFC 4180, UTF-8). Return the entries' count. Cannot be verified.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    count = 0
    with _replacing(path) as target, target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seq", "at", *_COLUMNS, "sentence"])
        for entry in history.entries:
            row = readable(entry)
            shown = [row.get(name) for name in ("at", *_COLUMNS, "sentence")]
            writer.writerow([entry.seq, *("" if value is None else _harmless(value) for value in shown)])
            count += 1
    return count


def _harmless(value: str | int) -> str | int:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def write_fhir(history: History, path: Path, consortium: str) -> int:
    """Write a FHIR R4 Bundle of AuditEvents, one a line. Return the entries' count. Cannot be verified by itself."""
    count = 0
    with _replacing(path) as target, target.open("w", encoding="utf-8") as file:
        file.write('{"resourceType": "Bundle", "type": "collection", "entry": [')
        for url, event in fhir.bundle(history.entries, consortium):
            file.write(",\n" if count else "\n")
            file.write(json.dumps({"fullUrl": url, "resource": event}, ensure_ascii=False))
            count += 1
        file.write("\n]}\n")
    return count


def _head(note: bytes) -> tuple[int | None, bytes]:
    """Return size and root as a note claims them; a note that cannot be read is exported all the same."""
    try:
        found = checkpoint.parse(notes.parse(note).text)
    except LogError:
        return None, b""
    return found.size, found.root


def readable(entry: Entry) -> dict[str, Any]:
    """Return the columns a person reads, `sentence` and `event` (bytes in hex) among them.

    An entry that cannot be decoded has none of the others: its bytes are kept all the same.
    """
    try:
        decoded = entries.decode(entry.leaf)
    except LogError:
        return {"sentence": "cannot be decoded", "event": None}
    kind = decoded.WhichOneof("event")
    columns = asdict(entries.columns(decoded))
    columns["at"] = entries.moment(decoded.at_ms)
    columns["sentence"] = entries.sentence(entry.seq, decoded)
    columns["event"] = _plain(getattr(decoded, kind)) if kind else {}
    return columns


def _plain(message: Message) -> dict[str, Any]:
    """Return a message's fields by name, bytes in hex."""
    return {field.name: _plain_value(value) for field, value in message.ListFields()}


def _plain_value(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case Message():
            return _plain(value)
        case str() | int() | float():
            return value
        case _:
            return [_plain_value(item) for item in value]


def _line(file: Any, record: dict[str, Any]) -> None:
    file.write(json.dumps(record, ensure_ascii=False) + "\n")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a fresh file to write, which takes the place of `path` once it is complete. Raise ConfigError."""
    target = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        target.unlink(missing_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield target
        target.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint="name a file you may write") from error
    finally:
        target.unlink(missing_ok=True)

"""What is told from a whole log: requests, spending, anomalies, the page for signature, CSV, FHIR; and the commands."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from fhir.resources.R4B.bundle import Bundle
from harness.audit import CONSORTIUM, INSTITUTIONS, World, new_world
from typer.testing import CliRunner

from analytics_client.audit import (
    Entry,
    History,
    Thresholds,
    anomalies,
    requests,
    spending,
    verify,
    write_csv,
    write_fhir,
    write_json_lines,
)
from analytics_client.audit import fhir as events
from analytics_client.audit.page import Period, page
from analytics_client.audit.spending import bars, drawing, span
from analytics_client.cli import app
from protos.v1 import log_pb2
from queries.errors import ConfigError, LogError
from trust.tlog.entries import KINDS

DAY_S = 86_400


def history(world: World) -> History:
    return History([Entry(*row) for row in world.entries()], world.checkpoints(), world.memberships)


def found(world: World, **limits: float) -> list[tuple[str, tuple[int, ...]]]:
    told = history(world)
    report = verify(told.entries, None, told.memberships, world.governance_key, checkpoints=told.checkpoints)
    assert report.ok, report.findings
    return [(a.kind, a.seqs) for a in anomalies(requests(told.entries), report, Thresholds(**limits))]  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path, queries=0)


def test_requests_are_put_together(world: World) -> None:
    world.query(survivors=("alpha", "gamma", "beta"))
    world.query(denied_by="beta", rule="purposes", dataset="labs")
    released, denied = requests(history(world).entries)
    assert (released.outcome, released.survivors, released.spent_nano) == (
        "released",
        ("alpha", "gamma", "beta"),
        10**6,
    )
    assert released.allowed_by() == set(INSTITUTIONS)
    assert (denied.outcome, denied.dataset, denied.spent_nano) == ("denied", "labs", 0)
    assert [(d.institution, d.rule) for d in denied.denials()] == [("beta", "purposes")]
    assert released.last_seq < denied.seq <= denied.last_seq


def test_what_a_request_costs(world: World) -> None:
    """A charge counts in full, the rounds of a job add up, what is running counts once it is allowed."""

    def ask(number: int) -> bytes:
        name = bytes([number]) * 32
        world.append(log_pb2.LogEntry(requested=log_pb2.Requested(request_id=name, analyst="ana", rho_nano=100)))
        return name

    charged, job, running, waiting = map(ask, range(4))
    world.append(log_pb2.LogEntry(failed=log_pb2.Failed(request_id=charged, reason="quorum", charged=True)))
    for slot in range(3):
        world.append(log_pb2.LogEntry(released=log_pb2.Released(request_id=job, rho_nano=20, slot=slot)))
    world.append(world.decision(running, "alpha", True))
    costs = {r.request_id: (r.outcome, r.spent_nano) for r in requests(history(world).entries)}
    assert costs == {
        charged: ("failed", 100),
        job: ("released", 60),
        running: ("running", 100),
        waiting: ("running", 0),
    }


def test_spending_grows_by_analyst_and_dataset(world: World) -> None:
    for _ in range(3):
        world.query(after_s=DAY_S)
    world.query(analyst="bob", after_s=DAY_S, rho_nano=5_000_000)
    world.query(analyst="bob", denied_by="beta")
    ana, bob = spending(requests(history(world).entries))
    assert (ana.analyst, ana.requests, ana.released, ana.denied, ana.rho) == ("ana", 3, 3, 0, 0.003)
    assert (bob.analyst, bob.requests, bob.released, bob.denied, bob.rho) == ("bob", 2, 1, 1, 0.005)
    assert [total for _, total in ana.steps] == [1_000_000, 2_000_000, 3_000_000]
    within = span([ana, bob])
    assert within == (ana.steps[0][0], bob.steps[-1][0])
    assert bars(ana, within, 3) == "▅██"
    assert bars(bob, within, 3) == "  █"
    svg = ElementTree.fromstring(drawing([ana, bob]))
    assert "bob on patients: rho 0.005" in "".join(svg.itertext())


def test_spending_of_nothing_is_drawn_too(world: World) -> None:
    world.query(denied_by="beta")
    spent = spending(requests(history(world).entries))
    assert span(spent) == (0, 0)
    assert bars(spent[0], (0, 0), 5) == "     "
    ElementTree.fromstring(drawing(spent))
    ElementTree.fromstring(drawing([]))


# --- anomalies: each is planted once among ordinary requests, and nothing else may be told ---------------------------


def ordinary(world: World) -> None:
    """A month of what two analysts do."""
    shapes = ["count(*) by sex", "mean(age) where diag", "count(*) by age where sex, diag, ward", "sum(days) by ward"]
    for day in range(20):
        world.query(shape=shapes[day % 4], analyst=("ana", "bob")[day % 2], dataset=("patients", "labs")[day // 4 % 2])
        world.now_ms += 2 * DAY_S * 1000


def test_an_ordinary_month_has_no_anomaly(world: World) -> None:
    ordinary(world)
    world.witness()
    assert found(world) == []


def test_differencing_by_one_predicate(world: World) -> None:
    world.query(shape="count(*) by sex where age")
    first = len(world.entries())
    world.query(shape="mean(age) where diag")
    world.query(shape="mean(age) where diag, ward", analyst="bob", after_s=5 * DAY_S)
    world.query(shape="mean(age) where diag, sex, ward, zip", after_s=1)  # two columns more: another question
    world.query(shape="mean(age)", dataset="labs")
    world.witness()
    assert found(world) == [("differencing", (first, first + 6))]
    assert found(world, differencing_days=4) == []


def test_differencing_by_one_institution(world: World) -> None:
    first = len(world.entries())
    world.query(survivors=("alpha", "beta", "gamma"))
    world.query(survivors=("alpha", "beta"), after_s=60)
    world.witness()
    assert found(world) == [("differencing", (first, first + 6))]


def test_a_denied_request_is_no_half_of_a_pair(world: World) -> None:
    world.query(shape="mean(age) where diag", denied_by="beta")
    world.query(shape="mean(age) where diag, ward")
    world.witness()
    assert [kind for kind, _ in found(world)] == ["reworded"]


def test_one_question_again_and_again(world: World) -> None:
    for _ in range(4):
        world.query(after_s=7 * DAY_S)
    world.witness()
    assert found(world) == []
    world.query(after_s=7 * DAY_S)
    world.witness()
    assert [(kind, len(seqs)) for kind, seqs in found(world)] == [("repeated", 5)]


def test_a_burst_is_told_once(world: World) -> None:
    for number in range(12):
        world.query(shape=f"mean(c{number})", after_s=60)
    for number in range(5):
        world.query(shape=f"sum(c{number})", after_s=3 * 3600)
    world.witness()
    assert [(kind, len(seqs)) for kind, seqs in found(world, burst=10)] == [("burst", 12)]
    assert found(world, burst=13) == []


@pytest.mark.parametrize("change", [{"shape": "count(*)"}, {"purpose": "billing"}, {"rho_nano": 5}], ids=str)
def test_denied_then_reworded(world: World, change: dict[str, str]) -> None:
    first = len(world.entries())
    world.query(denied_by="beta", rule="purposes")
    world.query(after_s=600, **change)  # type: ignore[arg-type]
    world.witness()
    assert found(world) == [("reworded", (first, first + 5))]
    assert found(world, reworded_hours=0.1) == []


def test_denied_and_asked_again_in_the_same_words_is_no_rewording(world: World) -> None:
    world.query(denied_by="beta")
    world.query(after_s=600)
    world.witness()
    assert found(world) == []


def test_a_budget_at_its_end_is_told_once_per_institution(world: World) -> None:
    first = len(world.entries())
    for permille in (500, 899, 900, 950):
        world.query(shape=f"mean(c{permille})", budget_permille=permille, after_s=DAY_S)
    world.query(shape="mean(c)", denied_by="beta", rule="budget", after_s=2 * DAY_S)
    last = len(world.entries()) - 5
    world.query(shape="sum(c)", denied_by="beta", rule="budget", after_s=2 * DAY_S)
    world.witness()
    assert found(world) == [("budget", (first + 12,))] * 3 + [("budget", (last, last + 5))]


def test_a_silent_witness(world: World) -> None:
    world.query()
    world.witness()
    size = len(world.entries())
    for _ in range(3):
        world.query(shape="mean(age)", after_s=DAY_S)
        world.witness("alpha", "gamma")
    assert found(world) == [("cosigning", (size - 1,))]
    assert found(world, silent_hours=100) == []


def test_a_member_that_never_cosigned(tmp_path: Path) -> None:
    world = new_world(tmp_path, queries=1, witnessed=False)
    world.query(after_s=2 * DAY_S)
    world.witness("alpha", "beta")
    assert found(world) == [("cosigning", (0,))]


# --- the page --------------------------------------------------------------------------------------------------------


class Read(HTMLParser):
    """Text of a page, and the names of what it would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.active: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "img", "link", "iframe", "object", "form"}:
            self.active.append(tag)
        self.active += [name for name, _ in attrs if name in {"src", "href"} or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def made(world: World, period: Period) -> str:
    told = history(world)
    report = verify(told.entries, None, told.memberships, world.governance_key, checkpoints=told.checkpoints)
    asked = requests(told.entries)
    return page(
        list(told.entries),
        asked,
        report,
        anomalies(asked, report),
        period,
        consortium=CONSORTIUM,
        made_ms=world.now_ms,
    )


def test_the_page_tells_a_period_and_stands_alone(world: World) -> None:
    world.query(purpose="before the period", after_s=DAY_S)
    begin = world.now_ms + 1
    world.query(dataset="labs", after_s=DAY_S)
    world.query(denied_by="beta", rule="purposes", after_s=DAY_S)
    world.append(log_pb2.LogEntry(actor="olga", log_read=log_pb2.LogRead(what="everything")))
    world.append(log_pb2.LogEntry(revoked=log_pb2.Revoked(participant="mallory", reason="left")))
    end = world.now_ms + 1
    world.query(purpose="after the period", after_s=DAY_S)
    world.witness()
    read = Read(made(world, Period(begin, end)))
    assert read.active == []
    assert "The log verifies." in read.text
    assert "labs sepsis study ana alpha, beta, gamma 1 1 0 0 0.001" in read.text
    assert "beta said no (purposes)" in read.text
    assert "revoked mallory (left)" in read.text
    assert "olga 1" in read.text
    assert "the period" not in read.text.replace("this period", "")
    assert "Data protection officer" in read.text


def test_the_page_escapes_what_people_wrote(world: World) -> None:
    evil = '<script>alert("x")</script><img src=x onerror=alert(1)>'
    world.query(purpose=evil, analyst=evil, dataset=evil, shape=evil, denied_by="beta", rule=evil)
    world.query(purpose=evil, analyst=evil, dataset=evil, shape=evil)
    world.append(log_pb2.LogEntry(actor=evil, log_read=log_pb2.LogRead(what=evil)))
    read = Read(made(world, Period(0, world.now_ms + 1)))
    assert read.active == []
    assert evil in read.text


def test_the_page_of_a_false_log_says_so(world: World, tmp_path: Path) -> None:
    world.query()
    told = history(world)
    entries = list(told.entries)
    entries[2] = Entry(2, entries[3].leaf)
    report = verify(entries, None, told.memberships, world.governance_key, checkpoints=told.checkpoints)
    asked = requests(entries)
    text = page(entries, asked, report, [], Period(0, world.now_ms), consortium=CONSORTIUM, made_ms=world.now_ms)
    assert "The log does not verify." in Read(text).text
    assert "The log verifies." not in Read(text).text


# --- other systems ---------------------------------------------------------------------------------------------------


def every_kind(world: World) -> None:
    world.query()
    world.query(denied_by="beta")
    world.append(
        log_pb2.LogEntry(invited=log_pb2.Invited(participant="zoe", role="analyst", expires_at=9)),
        log_pb2.LogEntry(enrolled=log_pb2.Enrolled(participant="zoe", role="analyst", identity_key=bytes(32))),
        log_pb2.LogEntry(revoked=log_pb2.Revoked(participant="zoe", reason="left")),
        log_pb2.LogEntry(dataset_published=log_pb2.DatasetPublished(dataset="labs", schema_hash=bytes(32))),
        log_pb2.LogEntry(log_read=log_pb2.LogRead(what="everything")),
    )


ACTIONS = set("CRUDE")
OUTCOMES = {"0", "4", "8", "12"}
TYPES = {str(code) for code in range(110100, 110115)}
SUBTYPES = {str(code) for code in range(110120, 110143)}


def test_fhir_bundle_is_r4_and_names_its_entries(world: World, tmp_path: Path) -> None:
    every_kind(world)
    told = history(world)
    undecodable = Entry(len(world.entries()), b"\xff")
    path = tmp_path / "log.fhir.json"
    count = write_fhir(History([*told.entries, undecodable]), path, CONSORTIUM)
    assert path.stat().st_mode & 0o777 == 0o600
    raw = json.loads(path.read_text())
    bundle = Bundle.model_validate(raw)
    assert len(bundle.entry) == count == len(world.entries()) + 1
    seen = set()
    for number, item in enumerate(raw["entry"]):
        event = AuditEvent.model_validate(item["resource"])
        assert event.type.code in TYPES
        assert {coding.code for coding in event.subtype or []} <= SUBTYPES
        assert event.action in ACTIONS
        assert event.outcome in OUTCOMES
        assert sum(agent.requestor for agent in event.agent) == 1
        assert event.source.observer.display
        assert event.entity[0].what.identifier.value == str(number)
        seen.add(event.outcome)
    assert seen == {"0", "4", "8"}
    assert len({item["fullUrl"] for item in raw["entry"]}) == count


def test_fhir_knows_every_kind_of_entry() -> None:
    assert set(KINDS) == set(events._TYPES)


def test_fhir_tells_who_asked_what_and_why(world: World) -> None:
    world.query(denied_by="beta", purpose="sepsis study")
    told = [event for _, event in events.bundle(history(world).entries, CONSORTIUM)]
    asked = next(event for event in told if len(event["agent"]) == 2)
    assert asked["agent"][0]["who"]["identifier"]["value"] == "ana"
    assert asked["agent"][0]["requestor"] is True
    assert asked["agent"][0]["type"]["coding"][0]["code"] == "110153"
    assert asked["purposeOfEvent"] == [{"text": "sepsis study"}]
    assert asked["entity"][1]["role"]["code"] == "24"
    denied = next(
        event for event in told if event["outcome"] == "8" and event["agent"][0]["who"]["identifier"]["value"] == "beta"
    )
    assert denied["agent"][1]["who"]["identifier"]["value"] == "ana"
    assert "denied request" in denied["outcomeDesc"]


def test_csv_holds_every_entry_and_no_formula(world: World, tmp_path: Path) -> None:
    world.query(purpose='=HYPERLINK("http://x")', analyst="@ana")
    path = tmp_path / "log.csv"
    count = write_csv(history(world), path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count == len(world.entries())
    asked = next(row for row in rows if row["kind"] == "requested")
    assert (asked["purpose"], asked["actor"]) == ('\'=HYPERLINK("http://x")', "'@ana")
    assert not any(cell.startswith(("=", "@", "+", "-")) for row in rows for cell in row.values())


# --- the commands, from an export ------------------------------------------------------------------------------------


@pytest.fixture
def exported(world: World, tmp_path: Path) -> list[str]:
    world.query(shape="mean(age) where diag")
    world.query(shape="mean(age) where diag, ward", analyst="bob", after_s=DAY_S)
    world.query(dataset="labs", denied_by="beta")
    world.witness()
    path = tmp_path / "log.jsonl"
    write_json_lines(history(world), path)
    return ["--export", str(path), "--governance-key", world.governance_key.hex()]


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["audit", *words], env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_who_asked(exported: list[str]) -> None:
    asked = json.loads(run("who-asked", "patients", *exported, "--json"))
    assert [(a["analyst"], a["outcome"], a["survivors"]) for a in asked] == [
        ("ana", "released", list(INSTITUTIONS)),
        ("bob", "released", list(INSTITUTIONS)),
    ]
    assert [
        a["analyst"] for a in json.loads(run("who-asked", "patients", "--analyst", "bob", *exported, "--json"))
    ] == ["bob"]
    assert json.loads(run("who-asked", "patients", "--before", "2025-10-09", *exported, "--json")) == []
    shown = run("who-asked", "labs", *exported)
    assert "beta: no rule" in shown
    assert "1 requests" in shown


def test_budget_as_table_and_plot(exported: list[str], tmp_path: Path) -> None:
    plot = tmp_path / "spending.svg"
    spent = json.loads(run("budget", *exported, "--plot", str(plot), "--json"))
    assert [(s["dataset"], s["analyst"], s["rho"]) for s in spent] == [
        ("labs", "ana", 0),
        ("patients", "ana", 0.001),
        ("patients", "bob", 0.001),
    ]
    ElementTree.parse(plot)
    assert "█" in run("budget", *exported)


def test_anomalies_command(exported: list[str]) -> None:
    assert [a["kind"] for a in json.loads(run("anomalies", *exported, "--json"))] == ["differencing"]
    assert "but for a condition on ward" in run("anomalies", *exported)
    assert "Nothing that stands out" in run("anomalies", "--kind", "burst", *exported)
    with pytest.raises(ConfigError, match="no anomaly"):
        run("anomalies", "--kind", "odd", *exported)


def test_report_command(exported: list[str], tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    told = json.loads(run("report", str(file), "--from", "2025-10-01", "--to", "2025-11-01", *exported, "--json"))
    assert (told["verified"], told["requests"]) == (True, 3)
    assert "north" in file.read_text()
    with pytest.raises(ConfigError, match="ends before it begins"):
        run("report", str(file), "--from", "2025-10-02", "--to", "2025-10-01", *exported)


def test_a_view_of_a_false_log_is_shown_and_fails(exported: list[str]) -> None:
    path = Path(exported[1])
    lines = path.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if '"seq": 4,' in line)
    record = json.loads(lines[number])
    record["leaf"] = json.loads(lines[number + 1])["leaf"]
    lines[number] = json.dumps(record)
    path.write_text("\n".join(lines))
    for command in (["who-asked", "patients"], ["budget"], ["anomalies"], ["report", str(path.with_suffix(".html"))]):
        with pytest.raises(LogError):
            run(*command, *exported)


@pytest.mark.sqlite_files("a copy of the file is cut off")
def test_a_head_kept_elsewhere_finds_a_clean_truncation(world: World, exported: list[str], tmp_path: Path) -> None:
    kept = tmp_path / "kept.note"
    kept.write_bytes(world.checkpoints()[-1])
    database = tmp_path / "cut.sqlite"
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as source, closing(sqlite3.connect(database)) as copy:
        source.backup(copy)
        for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            copy.execute(f"DROP TRIGGER {name}")
        size = world.checkpoints()[-2].split(b"\n")[1].decode()
        copy.execute(f"DELETE FROM audit_entry WHERE seq >= {size}")
        copy.execute(f"DELETE FROM checkpoint WHERE size > {size}")
        copy.execute(f"DELETE FROM cosignature WHERE size > {size}")
        copy.execute(f"DELETE FROM audit_node WHERE ((idx + 1) << level) > {size}")
        copy.commit()
    key = ["--governance-key", world.governance_key.hex()]
    assert "VERIFIED" in run("verify", "--database", str(database), *key)
    with pytest.raises(LogError):
        run("verify", "--database", str(database), "--head", str(kept), *key)

"""Reading and verifying the audit log without trusting whoever keeps it.

    history   what there is to verify: entries, signed heads, memberships
    verify    recompute everything, check every signature, name the entry that is wrong; what it finds is a `report`
    database  the same for a copy of an SQLite store, or of an SQLite export
    export    JSON lines, SQLite (opens in Datasette), CSV; `fhir` for hospitals' audit repositories
    reader    the coordinator's Audit service
    reconcile the log held against an institution's own journal
    asked     entries put together into requests; from them `spending`, `anomalies` and the `page` for signature

Needs no coordinator: everything but `reader` works on files. Must not know: how the coordinator stores anything, beyond
the tables that a copy of its database has.
"""

from analytics_client.audit.anomalies import Anomaly, Thresholds, anomalies
from analytics_client.audit.asked import Asked, requests
from analytics_client.audit.database import read_database, verify_database
from analytics_client.audit.export import (
    read_json_lines,
    readable,
    write_csv,
    write_fhir,
    write_json_lines,
    write_sqlite,
)
from analytics_client.audit.history import Entry, Gone, History
from analytics_client.audit.reader import AuditReader, Heads, Proof
from analytics_client.audit.reconcile import Reconciliation, read_journal, reconcile
from analytics_client.audit.report import Report
from analytics_client.audit.spending import Spending, spending
from analytics_client.audit.verify import verify
from trust.tlog.recount import roots_at
from trust.tlog.stored import Finding

__all__ = [
    "Anomaly",
    "Asked",
    "AuditReader",
    "Entry",
    "Finding",
    "Gone",
    "Heads",
    "History",
    "Proof",
    "Reconciliation",
    "Report",
    "Spending",
    "Thresholds",
    "anomalies",
    "read_database",
    "read_journal",
    "read_json_lines",
    "readable",
    "reconcile",
    "requests",
    "roots_at",
    "spending",
    "verify",
    "verify_database",
    "write_csv",
    "write_fhir",
    "write_json_lines",
    "write_sqlite",
]

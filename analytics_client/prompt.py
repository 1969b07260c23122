"""The sandbox's prompt: type SQL, read the answer. A thin reader of lines over a session.

Must not know: how the consortium behind the session was made.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from analytics_client import render
from analytics_client.session import Session
from queries.errors import CohortiumError, QueryError
from trust.command import print_json

if TYPE_CHECKING:
    from rich.console import RenderableType

HELP = """\
SELECT ...            ask; costs the epsilon that is set
explain SELECT ...    what it would disclose, cost and be worth; spends nothing
\\d                    list datasets              \\d NAME        describe one
\\epsilon E            set what a query costs      \\log           who asked what, from the audit log
\\q                    leave"""
DEFAULT_EPSILON = 1.0


class Prompt:
    """Runs lines against a session. `auditor` is the folder of someone who may read the log."""

    def __init__(self, session: Session, auditor: Path, *, as_json: bool = False) -> None:
        self._session = session
        self._auditor = auditor
        self._as_json = as_json
        self._epsilon = DEFAULT_EPSILON

    def run(self, line: str) -> bool:
        """Run one line and print what it answers; False where it asks to leave. Raise as a session does."""
        word, _, rest = line.strip().rstrip(";").partition(" ")
        rest = rest.strip()
        match word.lower():
            case "":
                pass
            case "\\q" | "quit" | "exit":
                return False
            case "select" | "with":
                self._ask(line)
            case "explain" if rest:
                explanation = self._session.explain(rest, epsilon=self._epsilon)
                self._show(explanation.to_dict(), render.explanation_table(explanation))
            case "\\d" if not rest:
                listings = self._session.datasets()
                self._show([render.listing_record(item) for item in listings], render.datasets_table(listings))
            case "\\d":
                dataset = self._session.describe(rest)
                self._show(render.dataset_record(dataset), render.schema_table(dataset))
            case "\\epsilon" if rest:
                self._set_epsilon(rest)
            case "\\log":
                self._show_log()
            case "\\?" | "\\h" | "help":
                typer.echo(HELP)
            case _:
                raise QueryError(f"{word[:40]!r} is nothing that can be typed here", hint="\\? shows what can")
        return True

    def loop(self) -> None:
        """Read lines until the end of input or \\q. Errors are shown and the prompt goes on."""
        if sys.stdin.isatty():
            import readline  # noqa: F401 - importing it gives `input` editing and history

            typer.echo(f"{HELP}\n")
        while True:
            try:
                if not self.run(input("cohortium> " if sys.stdin.isatty() else "")):
                    return
            except EOFError:
                return
            except KeyboardInterrupt:
                typer.echo("")
            except CohortiumError as error:
                self._complain(error)

    def _ask(self, line: str) -> None:
        result = self._session.query(line.strip().rstrip(";"), epsilon=self._epsilon)
        self._show(result.to_dict(), render.result_table(result))

    def _show(self, record: Any, table: RenderableType) -> None:
        if self._as_json:
            print_json(record)
        else:
            render.stdout().print(table)

    def _set_epsilon(self, text: str) -> None:
        try:
            epsilon = float(text)
        except ValueError:
            raise QueryError("epsilon is a number", hint="for example \\epsilon 0.5") from None
        if not 0 < epsilon <= 100:
            raise QueryError("epsilon must be above 0 and at most 100")
        self._epsilon = epsilon

    def _show_log(self) -> None:
        from analytics_client.audit.export import readable
        from analytics_client.audit_session import open_log
        from trust.tlog.entries import decode, sentence

        with open_log(self._auditor) as log:
            entries = list(log.reader.entries())
        if self._as_json:
            print_json([{"seq": entry.seq, **readable(entry)} for entry in entries])
            return
        for entry in entries:
            typer.echo(sentence(entry.seq, decode(entry.leaf)))

    @staticmethod
    def _complain(error: CohortiumError) -> None:
        for line in render.refusal_lines(error):
            typer.echo(line, err=True)
        typer.echo(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), err=True)

"""The one exception tree of Cohortium.

Every error says what is wrong in one line and, in `hint`, what the reader can do next. Neither ever contains a value,
a literal or an exact count taken from data: error text is an output like any other.

    CohortiumError
    ├── QueryError              what was asked cannot be asked
    │   ├── SqlError            ... the text is not SQL we accept (has line and column)
    │   ├── UnknownName         ... a dataset or column does not exist (suggests the nearest)
    │   └── LiteralError        ... a literal is outside the published bounds or categories
    ├── SchemaError             the public metadata contradict themselves
    ├── BudgetError             a privacy cost is impossible or no longer affordable
    ├── PolicyDenied            an institution's or the coordinator's policy says no (has the rule)
    │   └── AwaitingApproval    ... until a steward has looked at it
    ├── IdentityError           who is speaking cannot be established
    │   ├── InvitationError     ... expired, used or unknown invitation
    │   ├── SignatureError      ... a signature does not verify
    │   └── ClockError          ... two clocks disagree too much to judge expiry
    ├── RoundError              a secure-aggregation round cannot go on
    │   ├── ProtocolViolation   ... a message breaks the protocol (names the party)
    │   └── QuorumError         ... too few institutions answer
    ├── LogError                the audit log is not what it must be (names the entry)
    ├── ConfigError             a configuration file or folder is unusable
    ├── DataError               an institution's local data do not fit the schema
    └── ServiceError            the other side cannot be reached or failed
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class Refusal:
    """An institution's own no to a request: under which rule, and in its words."""

    institution: str
    rule: str
    message: str


class CohortiumError(Exception):
    """Base of every error. `code` is stable and travels over the wire; `exit_code` is the process's exit status.

    Where a request ended this way, `refusals` holds the institutions that said no, and `charged` whether the budget is
    spent all the same.
    """

    code = "error"
    exit_code = 1
    refusals: tuple[Refusal, ...] = ()
    charged = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class QueryError(CohortiumError):
    """What was asked cannot be asked."""

    code = "query"
    exit_code = 2


class SqlError(QueryError):
    """The text is not SQL that Cohortium accepts. `line` and `column` count from 1; 0 where unknown."""

    code = "sql"

    def __init__(self, message: str, *, hint: str = "", line: int = 0, column: int = 0) -> None:
        where = f"line {line}, column {column}: " if line else ""
        super().__init__(where + message, hint=hint)
        self.line = line
        self.column = column


class UnknownName(QueryError):
    """A dataset or column that does not exist."""

    code = "unknown-name"

    def __init__(self, kind: str, name: str, known: Iterable[str], *, line: int = 0, column: int = 0) -> None:
        names = sorted(known)
        near = get_close_matches(name[:64].lower(), [n.lower() for n in names], n=1, cutoff=0.5)
        nearest = next((n for n in names if near and n.lower() == near[0]), None)
        shown = name if len(name) <= 64 else name[:61] + "..."
        hint = f"did you mean {nearest!r}?" if nearest else f"known: {', '.join(names[:12])}" if names else ""
        where = f"line {line}, column {column}: " if line else ""
        super().__init__(f"{where}there is no {kind} {shown!r}", hint=hint)
        self.line = line
        self.column = column


class LiteralError(QueryError):
    """A literal outside the published bounds or categories."""

    code = "literal"


class SchemaError(CohortiumError):
    """The public metadata of a dataset contradict themselves."""

    code = "schema"
    exit_code = 2


class BudgetError(CohortiumError):
    """A privacy cost is impossible, or no longer affordable."""

    code = "budget"
    exit_code = 3


class PolicyDenied(CohortiumError):
    """Policy says no. `rule` names the rule that decided."""

    code = "policy"
    exit_code = 3

    def __init__(self, message: str, *, rule: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rule = rule


class AwaitingApproval(PolicyDenied):
    """A steward has to approve the question first; asked again after that, it is answered. Nothing is spent."""

    code = "approval"


class IdentityError(CohortiumError):
    """Who is speaking cannot be established."""

    code = "identity"
    exit_code = 4


class InvitationError(IdentityError):
    """An invitation that is expired, used or unknown."""

    code = "invitation"


class SignatureError(IdentityError):
    """A signature that does not verify."""

    code = "signature"


class ClockError(IdentityError):
    """Two clocks disagree too much to judge expiry."""

    code = "clock"


class RoundError(CohortiumError):
    """A secure-aggregation round cannot go on."""

    code = "round"
    exit_code = 5


class ProtocolViolation(RoundError):
    """A message that breaks the protocol. `party` is the institution it is attributed to, or "coordinator"."""

    code = "protocol"

    def __init__(self, message: str, *, party: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.party = party


class QuorumError(RoundError):
    """Too few institutions answer."""

    code = "quorum"


class LogError(CohortiumError):
    """The audit log is not what it must be."""

    code = "log"
    exit_code = 6


class ConfigError(CohortiumError):
    """A configuration file or folder that is unusable."""

    code = "config"
    exit_code = 2


class DataError(CohortiumError):
    """An institution's local data do not fit the schema. Raised and shown locally only."""

    code = "data"
    exit_code = 2


class ServiceError(CohortiumError):
    """The other side cannot be reached, or failed."""

    code = "service"
    exit_code = 7

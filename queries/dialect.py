"""The SQL that Cohortium reads, as a sqlglot dialect: SQL text to a syntax tree, or SqlError at line and column.

The vocabulary is an allow-list. A token that the subset has no use for is refused before the parser sees it, with the
reason and the next step; every other word is a plain name, so a column may be called `date` or `first`. Length and
nesting are capped in the same pass, and the parser runs on a stack of its own, so no text can exhaust it.

Imports sqlglot (about 0.1 s): only those who read SQL import this module. Must not know: schemas, `ir`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from typing import ClassVar, TypeVar

from sqlglot import Token, TokenType, exp, parser, tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, TokenError

from queries import vocabulary
from queries.errors import SqlError
from queries.limits import MAX_SQL_BYTES
from queries.vocabulary import ENDS_VALUE, EXPECTED, FOLLOWERS, FUNCTIONS, REFUSED_WORDS, ROLES, SCALARS, SUBSET

MAX_NESTING = 24
"""Open parentheses and prefix operators. The parser takes up to 25 Python frames for each, out of 1,000."""
MAX_TOKENS = 20_000
Result = TypeVar("Result")

_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED_OR_COMMENT = re.compile(
    r"""--[^\n]*|(?P<block>/\*)|'[^']*(?:''[^']*)*(?P<text>'?)|"[^"]*(?:""[^"]*)*(?P<name>"?)"""
)
_GAP = re.compile(r"(?:\s+|--[^\n]*)*")


class Subset(Dialect):
    """Our vocabulary and nothing else: no functions, types, comments with an end, or escapes of the base dialect."""

    class Tokenizer(tokens.Tokenizer):
        """Words and marks of the subset; every other word is a name."""

        KEYWORDS: ClassVar[dict[str, TokenType]] = vocabulary.KEYWORDS
        SINGLE_TOKENS: ClassVar[dict[str, TokenType]] = {**vocabulary.MARKS, **vocabulary.REFUSED_MARKS}
        COMMENTS: ClassVar[list[str | tuple[str, str]]] = ["--"]
        COMMENTS_TERMINATE_AT_NEWLINE_ONLY = True

    class Parser(parser.Parser):
        """Calls stay what was written: `name(arguments)`."""

        FUNCTIONS: ClassVar = {}
        FUNCTION_PARSERS: ClassVar = {}
        NO_PAREN_FUNCTIONS: ClassVar = {}
        NO_PAREN_FUNCTION_PARSERS: ClassVar = {"CASE": lambda self: self._parse_case()}


class Text:
    """The text of a query; it turns offsets, and nodes of its tree, into errors that say where.

    `columns` are names that some dataset publishes: where one is a refused word too, the error says how to write it.
    """

    def __init__(self, text: str, columns: frozenset[str]) -> None:
        self.text = text
        self.columns = columns

    def place(self, offset: int) -> tuple[int, int]:
        """Return line and column, from 1, of a character."""
        return self.text.count("\n", 0, offset) + 1, offset - self.text.rfind("\n", 0, offset)

    def error(self, offset: int, message: str, hint: str) -> SqlError:
        """Return an SqlError at a character."""
        line, column = self.place(offset)
        return SqlError(message, hint=hint, line=line, column=column)

    def where(self, node: exp.Expr) -> tuple[int, int]:
        """Return line and column of the first thing in a node, or around it, whose place is known."""
        around: exp.Expr | None = node
        while around is not None:
            for part in around.walk(bfs=False):
                start = part.meta.get("start")
                if isinstance(start, int):
                    return self.place(start)
            around = around.parent
        return 1, 1


def run_on_own_stack(work: Callable[[], Result]) -> Result:
    """Return work(), run in a new thread: Python counts depth by thread, so the caller's depth does not matter."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="sql") as pool:
        return pool.submit(work).result()


def read(text: str, columns: frozenset[str] = frozenset()) -> tuple[exp.Select, Text]:
    """Return the tree of one SELECT and its text. Raise SqlError on whatever is no SELECT of the subset's words.

    The caller checks the tree's shape: what stands where is still the parser's generous view of it. Run it, and what
    walks its tree, through `run_on_own_stack`.
    """
    # len() first: a text of a megabyte is refused without being encoded.
    if len(text) > MAX_SQL_BYTES or len(text.encode("utf-8", "replace")) > MAX_SQL_BYTES:
        raise SqlError(f"the query is longer than {MAX_SQL_BYTES // 1024} KiB", hint="ask a shorter question")
    source = Text(text, columns)
    _refuse_open_quotes(source)
    found = _tokens(source)
    _refuse(source, found)
    try:
        trees = Subset().parser().parse(found, text)
    except ParseError as error:
        raise _syntax_error(source, error) from error
    except RecursionError as error:  # no text is known to do this; another version of the parser may find one
        raise SqlError("the query is nested too deep", hint="remove needless parentheses") from error
    tree = trees[0]
    if len(trees) != 1 or not isinstance(tree, exp.Select):
        raise SqlError("this is not a query", hint=f"write {SUBSET}", line=1, column=1)
    return tree, source


def _refuse_open_quotes(source: Text) -> None:
    for match in _QUOTED_OR_COMMENT.finditer(source.text):
        if match["block"]:
            raise source.error(
                match.start(),
                "block comments are refused",
                "engines disagree on where they end: use -- to the end of the line",
            )
        if match["text"] == "" or match["name"] == "":
            raise source.error(match.start(), "this quote is never closed", "double a quote inside a text: 'O''Brien'")


def _tokens(source: Text) -> list[Token]:
    try:
        found: list[Token] = Subset().tokenize(source.text)
    except TokenError as error:
        raise SqlError("the query cannot be read", hint=f"write {SUBSET}") from error
    _refuse_gaps(source, found)
    while found and found[-1].token_type is TokenType.SEMICOLON:
        found.pop()
    if not found:
        raise SqlError("the query is empty", hint=f"write {SUBSET}")
    if len(found) > MAX_TOKENS:
        raise source.error(
            found[MAX_TOKENS].start, f"the query has more than {MAX_TOKENS:,} words", "ask a shorter question"
        )
    return found


def _refuse_gaps(source: Text, found: list[Token]) -> None:
    """Between two tokens there is white space or a line comment: the tokenizer must not have skipped anything else."""
    start = 0
    for end, after in (*((token.start, token.end + 1) for token in found), (len(source.text), 0)):
        gap = _GAP.match(source.text, start, end)
        if gap is None or gap.end() != end:
            raise source.error(gap.end() if gap else start, "this is no part of a query", f"write {SUBSET}")
        start = after


def _refuse(source: Text, found: list[Token]) -> None:
    """Raise at the first token that has no place in a query, or that nests too deep."""
    first = found[0]
    if first.token_type is not TokenType.SELECT:
        raise source.error(
            first.start, f"a query starts with SELECT, not {_shown(first)}", f"data can only be asked: {SUBSET}"
        )
    opened: list[int] = []
    depth = nots = 0
    before = ""
    for position, token in enumerate(found):
        calls = position + 1 < len(found) and found[position + 1].token_type is TokenType.L_PAREN
        _refuse_token(source, token, before, calls)
        role = _role(token, before, calls)
        if before and role not in FOLLOWERS[before]:
            raise _misplaced(source, token, before)
        if role in {"open", "case"}:
            opened.append(nots + 1)
            depth, nots = depth + nots + 1, 0
        elif role in {"close", "end-case"}:
            if not opened:
                raise source.error(token.start, f"this {_shown(token)} closes nothing", "remove it")
            depth, nots = depth - opened.pop(), 0
        else:
            nots = nots + 1 if role == "not" else 0
        if depth + nots > MAX_NESTING:
            message = f"the query is nested more than {MAX_NESTING} levels deep"
            raise source.error(token.start, message, "remove needless parentheses")
        before = role
    if "end" not in FOLLOWERS[before]:
        raise source.error(found[-1].start, "the query ends too early", EXPECTED.get(before, f"write {SUBSET}"))


def _role(token: Token, before: str, calls: bool) -> str:
    """Return what a token is for, seen from the one before it and whether a parenthesis opens after it."""
    role = ROLES[token.token_type]
    match role, before:
        case "not", "name" | "qualified":
            return "name-not"
        case "not", "is":
            return "is-not"
        case "name", "point":
            return "qualified"
        case "name", _ if calls:
            return "scalar" if token.text.upper() in SCALARS else "call"
        case "sign" | "star", _ if before in ENDS_VALUE:
            return "operator"
        case _:
            return role


def _misplaced(source: Text, token: Token, before: str) -> SqlError:
    hint = EXPECTED.get(before, f"write {SUBSET}")
    if token.token_type is TokenType.L_PAREN and before in {"name", "qualified"}:
        hint = "aggregates stand between SELECT and FROM"
    if token.token_type is TokenType.DISTINCT:
        hint = "only persons can be counted apart: COUNT(DISTINCT patient_id)"
    if token.text.lower() in source.columns and token.token_type is not TokenType.VAR:
        hint += f'; for the column of this name write "{token.text.lower()}"'
    return source.error(token.start, f"{_shown(token)} cannot stand here", hint)


def _refuse_token(source: Text, token: Token, before: str, calls: bool) -> None:
    kind, text = token.token_type, token.text
    if kind is TokenType.SEMICOLON:
        raise source.error(token.start, "one query is one statement", "remove what follows the semicolon")
    if kind not in ROLES:
        raise source.error(token.start, f"{_shown(token)} has no place in a query", f"write {SUBSET}")
    if kind is TokenType.SELECT and before:
        raise source.error(token.start, "a second SELECT is not possible", "one SELECT over one dataset: no subqueries")
    if before == "from" and (kind is TokenType.STRING or calls):
        raise source.error(token.start, "files and table functions cannot be queried", "name a dataset after FROM")
    if kind is TokenType.IDENTIFIER and not _WORD.fullmatch(text):
        hint = "files and paths cannot be queried; text goes into single quotes"
        raise source.error(token.start, "a quoted name holds letters, digits and _ only", hint)
    if kind in {TokenType.VAR, TokenType.IDENTIFIER} and calls:
        _refuse_function(source, token)
    elif kind is TokenType.VAR:
        _refuse_word(source, token)
    elif kind is TokenType.NUMBER and not _NUMBER.fullmatch(text):
        raise source.error(token.start, "this number cannot be read", "write 12, 1.5 or 1e-3")


def _refuse_function(source: Text, token: Token) -> None:
    name = token.text.upper()
    if token.token_type is TokenType.VAR and (name in FUNCTIONS or name in SCALARS):
        return
    if name in REFUSED_WORDS:
        _refuse_word(source, token)
    near = get_close_matches(name[:64], [*FUNCTIONS, *SCALARS], n=1, cutoff=0.75)
    known = f"did you mean {near[0]}?" if near else f"there are {', '.join((*FUNCTIONS, *SCALARS))}"
    if name in {"FIRST", "LAST", "ANY_VALUE", "MODE"}:
        known = "a single person would decide it: ask for a HISTOGRAM"
    if name.startswith("LOG"):
        known = "write LN(x), the natural logarithm: what LOG means differs between databases"
    raise source.error(token.start, f"there is no function {_shown(token)}", known)


def _refuse_word(source: Text, token: Token) -> None:
    word = token.text.upper()
    if word in REFUSED_WORDS:
        hint = REFUSED_WORDS[word]
        if token.text.lower() in source.columns:
            hint += f'; for the column of this name write "{token.text.lower()}"'
        raise source.error(token.start, f"{word} is not possible", hint)
    if not _WORD.fullmatch(token.text):
        raise source.error(token.start, f"{_shown(token)} is no name", "names are letters, digits and _")


def _shown(token: Token) -> str:
    return repr(token.text if len(token.text) <= 24 else token.text[:21] + "...")


def _syntax_error(source: Text, error: ParseError) -> SqlError:
    """Say where the parser stopped; its own words describe a larger language than ours."""
    found = error.errors[0] if error.errors else {}
    line, column = found.get("line"), found.get("col")
    if not isinstance(line, int) or not isinstance(column, int):
        line, column = source.place(max(len(source.text.rstrip()) - 1, 0))
    column = max(column - len(found.get("highlight") or "x") + 1, 1)
    return SqlError("the query cannot be understood from here on", hint=f"write {SUBSET}", line=line, column=column)

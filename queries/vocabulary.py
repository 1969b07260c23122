"""The words and marks of the SQL that Cohortium reads, and what may follow what: tables that `dialect` goes by.

A word that stands in none of them is a plain name, or refused. Must not know: texts, trees, schemas.
"""

from __future__ import annotations

from sqlglot import TokenType

FUNCTIONS = {
    "COUNT": "count",
    "SUM": "sum",
    "AVG": "avg",
    "VARIANCE": "variance",
    "VAR_SAMP": "variance",
    "VAR_POP": "var_pop",
    "STDDEV": "stddev",
    "STDDEV_SAMP": "stddev",
    "STDDEV_POP": "stddev_pop",
    "COUNT_IF": "count_if",
    "HISTOGRAM": "histogram",
    "MEDIAN": "median",
    "QUANTILE_CONT": "quantile",
    "MIN": "min",
    "MAX": "max",
    "SKEWNESS": "skewness",
    "KURTOSIS": "kurtosis",
    "CORR": "corr",
    "COVAR_POP": "covar_pop",
    "COVAR_SAMP": "covar_samp",
    "REGR_SLOPE": "regr_slope",
    "REGR_INTERCEPT": "regr_intercept",
    "REGR_R2": "regr_r2",
    "REGR_COUNT": "regr_count",
}
"""Every function, with the name its output has by default."""
SCALARS = {"LN": 1, "SQRT": 1, "ABS": 1, "BOUND": 3}
"""Functions of the values in one row, with how many arguments each takes."""

SUBSET = "SELECT aggregates FROM dataset [WHERE condition] [GROUP BY columns] [HAVING ...] [ORDER BY ...] [LIMIT n]"
KEYWORDS = {
    "SELECT": TokenType.SELECT,
    "FROM": TokenType.FROM,
    "WHERE": TokenType.WHERE,
    "GROUP BY": TokenType.GROUP_BY,
    "AS": TokenType.ALIAS,
    "AND": TokenType.AND,
    "OR": TokenType.OR,
    "NOT": TokenType.NOT,
    "IN": TokenType.IN,
    "BETWEEN": TokenType.BETWEEN,
    "IS": TokenType.IS,
    "DISTINCT": TokenType.DISTINCT,
    "HAVING": TokenType.HAVING,
    "ORDER BY": TokenType.ORDER_BY,
    "ASC": TokenType.ASC,
    "DESC": TokenType.DESC,
    "LIMIT": TokenType.LIMIT,
    "CASE": TokenType.CASE,
    "WHEN": TokenType.WHEN,
    "THEN": TokenType.THEN,
    "ELSE": TokenType.ELSE,
    "END": TokenType.END,
    "NULL": TokenType.NULL,
    "!=": TokenType.NEQ,
    "<>": TokenType.NEQ,
    "<=": TokenType.LTE,
    ">=": TokenType.GTE,
}
MARKS = {
    "(": TokenType.L_PAREN,
    ")": TokenType.R_PAREN,
    ",": TokenType.COMMA,
    ".": TokenType.DOT,
    "-": TokenType.DASH,
    "+": TokenType.PLUS,
    "*": TokenType.STAR,
    "/": TokenType.SLASH,
    "=": TokenType.EQ,
    "<": TokenType.LT,
    ">": TokenType.GT,
    ";": TokenType.SEMICOLON,
}
REFUSED_MARKS = dict.fromkeys("[]{}&^:%!|\\~?@#$`'\"", TokenType.UNKNOWN)
"""They only end a word; a token of this type is refused."""
_REFUSALS = {
    "JOIN INNER CROSS NATURAL LEFT RIGHT FULL OUTER ON USING LATERAL UNNEST": "a query reads one dataset",
    "UNION INTERSECT EXCEPT": "send two queries",
    "WITH": "ask the dataset itself, in one SELECT",
    "ORDER": "write ORDER BY after the groups",
    "OFFSET FETCH QUALIFY": "the result is a DataFrame: cut it there",
    "INTO": "the result is a DataFrame",
    "OVER WINDOW PARTITION FILTER": "put the condition into WHERE",
    "CAST": "columns are numbers or categories already",
    "LIKE ILIKE SIMILAR REGEXP RLIKE GLOB": "list the categories with IN",
    "EXISTS ANY SOME": "list the values with IN",
    "PIVOT UNPIVOT TABLESAMPLE ROLLUP CUBE GROUPING": "GROUP BY categorical columns",
    "ALL": "ask for aggregates and GROUP BY categorical columns",
    "TRUE FALSE": "compare a column with a number or a text",
}
REFUSED_WORDS = {word: hint for words, hint in _REFUSALS.items() for word in words.split()}
_VALUE = "name literal sign point scalar case open"
_AFTER = (
    "operator compare and or close comma from as where group-by having order-by limit asc desc when then else end-case"
    " in name-not between is end"
)
FOLLOWERS = {
    role: frozenset(followers.split())
    for role, followers in {
        "select": f"{_VALUE} call star",
        "from": "name",
        "where": f"{_VALUE} call not",
        "group-by": _VALUE,
        "having": f"{_VALUE} call not",
        "order-by": f"{_VALUE} call",
        "limit": "literal",
        "asc": "comma limit end",
        "desc": "comma limit end",
        "as": "name",
        "and": f"{_VALUE} call not",
        "or": f"{_VALUE} call not",
        "not": f"{_VALUE} call not",
        "name-not": "in between",
        "in": "open",
        "between": "literal sign point",
        "is": "null is-not",
        "is-not": "null",
        "null": "and or close where group-by having order-by limit when then else end-case comma end",
        "compare": f"{_VALUE} call null",
        "operator": _VALUE,
        "open": f"{_VALUE} call not star null close distinct",
        "distinct": "name",
        "close": f"{_AFTER} name",
        "comma": f"{_VALUE} call not star null",
        "point": "qualified literal star",
        "sign": "literal point name scalar open",
        "star": "close from comma",
        "case": "when",
        "when": f"{_VALUE} call not",
        "then": f"{_VALUE} null",
        "else": f"{_VALUE} null",
        "end-case": f"{_AFTER} name",
        "name": f"{_AFTER} point name",
        "qualified": f"{_AFTER} name",
        "call": "open",
        "scalar": "open",
        "literal": _AFTER,
    }.items()
}
ENDS_VALUE = frozenset({"name", "qualified", "literal", "close", "end-case"})
"""What may follow what. With nesting capped, nothing built from these pairs makes the parser recurse or back-track."""
ROLES = {
    TokenType.SELECT: "select", TokenType.FROM: "from", TokenType.WHERE: "where", TokenType.GROUP_BY: "group-by",
    TokenType.ALIAS: "as", TokenType.AND: "and", TokenType.OR: "or", TokenType.NOT: "not", TokenType.IN: "in",
    TokenType.BETWEEN: "between", TokenType.IS: "is", TokenType.NULL: "null", TokenType.EQ: "compare",
    TokenType.NEQ: "compare", TokenType.LT: "compare", TokenType.LTE: "compare", TokenType.GT: "compare",
    TokenType.GTE: "compare", TokenType.L_PAREN: "open", TokenType.R_PAREN: "close", TokenType.COMMA: "comma",
    TokenType.DOT: "point", TokenType.DASH: "sign", TokenType.PLUS: "sign", TokenType.STAR: "star",
    TokenType.DISTINCT: "distinct", TokenType.HAVING: "having", TokenType.ORDER_BY: "order-by", TokenType.ASC: "asc",
    TokenType.DESC: "desc", TokenType.LIMIT: "limit", TokenType.CASE: "case", TokenType.WHEN: "when",
    TokenType.THEN: "then", TokenType.ELSE: "else", TokenType.END: "end-case", TokenType.SLASH: "operator",
    TokenType.VAR: "name", TokenType.IDENTIFIER: "name", TokenType.NUMBER: "literal", TokenType.STRING: "literal",
}  # fmt: skip
EXPECTED = {
    "select": "name aggregates, such as COUNT(*) or AVG(age)",
    "from": "name one dataset; subqueries and files cannot be queried",
    "comma": "remove the comma or go on with the list",
    "group-by": "name categorical columns",
    "distinct": "only persons can be counted apart: COUNT(DISTINCT patient_id)",
    "is": "write IS NULL or IS NOT NULL",
    "is-not": "write IS NOT NULL",
    "in": "list the values in parentheses",
    "compare": "compare a column with a number or a text in quotes",
    "between": "write BETWEEN 18 AND 65",
    "name-not": "write NOT IN or NOT BETWEEN",
    "star": "rows are never returned: ask for aggregates",
    "operator": "write a column, a number or an expression in parentheses",
    "case": "write CASE WHEN condition THEN value ELSE value END",
    "limit": "write a whole number",
}

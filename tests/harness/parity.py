"""Every statistic beside pandas, scipy and statsmodels on the pooled file, the noise taken out.

`cases` runs whole consortia (real gRPC, mTLS, secure aggregation, DuckDB) of three and four institutions and yields a
`Case` for every number. Values come from `session.query`; references never touch the product's code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from analytics_client.result import Result
from analytics_client.session import Session
from harness.consortium import consortium
from harness.data import CNSIM, DATA, HEART, cnsim_pooled, heart_pooled
from harness.noiseless import remove_noise
from queries.builder import (
    ColumnRef,
    Measure,
    Table,
    _,
    anova,
    case,
    correlation,
    correlation_matrix,
    count,
    count_pairs,
    covariance,
    covariance_matrix,
    independence_test,
    intercept,
    linear_model,
    log_rank,
    paired_t_test,
    principal_components,
    r_squared,
    slope,
    survival,
    t_test,
)
from queries.quantiles import tree_of

TOLERANCE = 1e-8


@dataclass(frozen=True)
class Case:
    """One number of the product beside the same of a library."""

    name: str
    reference: float
    value: float
    leaf: float = 0.0
    """Of a quantile, the width of the leaves it is read from; its value is right to within one."""

    @property
    def agrees(self) -> bool:
        """Whether the two are the same number: to 1e-8, or to a quantile's leaf."""
        return self.relative_error <= TOLERANCE or abs(self.value - self.reference) <= self.leaf

    @property
    def relative_error(self) -> float:
        """The difference in units of the reference; absolute where that is 0."""
        return abs(self.value - self.reference) / (abs(self.reference) or 1.0)


Numbers = Mapping[str, float]


def numeric(name: str, lower: float, upper: float) -> str:
    return f'[columns.{name}]\ntype = "number"\nlower = {lower}\nupper = {upper}\n'


def category(name: str, *keys: str) -> str:
    return f'[columns.{name}]\ntype = "category"\ncategories = {list(keys)}\n'.replace("'", '"')


def dataset(name: str, *columns: str, unit: str = "") -> str:
    return (
        f'name = "{name}"\nmax_persons = 1000000\n' + (f'privacy_unit = "{unit}"\n' if unit else "") + "".join(columns)
    )


CNSIM_ALL = dataset(
    "cnsim",
    numeric("lab_tsc", 0, 15),
    numeric("lab_trig", -10, 20),
    numeric("lab_hdl", -2, 5),
    numeric("lab_gluc", 0, 30),
    numeric("bmi", 5, 80),
    category("gender", "0", "1"),
    category("dis_diab", "0", "1"),
    category("bmi_class", "1", "2", "3"),
)
HEART_ALL = dataset(
    "heart",
    numeric("age", 0, 120),
    numeric("chol", 0, 700),
    numeric("trestbps", 0, 250),
    numeric("thalach", 0, 300),
    numeric("oldpeak", -10, 10),
    category("sex", "0", "1"),
    category("cp", "1", "2", "3", "4"),
    category("num", "0", "1", "2", "3", "4"),
    unit="patient_id",
)
TREES = dataset("trees", numeric("girth", 0, 30), numeric("height", 0, 120), numeric("volume", 0, 100))
AWARDS = dataset(
    "awards",
    numeric("num_awards", 0, 10),
    numeric("math", 0, 100),
    category("prog", "General", "Academic", "Vocational"),
)
ADMISSIONS = dataset(
    "admissions",
    numeric("gre", 200, 800),
    numeric("gpa", 0, 4),
    category("admit", "0", "1"),
    category("rank", "1", "2", "3", "4"),
)
LIVES = dataset(
    "lives",
    numeric("eventtime", 0, 12),
    numeric("age", 0, 120),
    category("status", "0", "1"),
    category("sex", "0", "1"),
)
FOLDERS = {"trees": "gaussian", "awards": "poisson", "admissions": "binomial", "lives": "survival"}


def files() -> dict[str, dict[str, str]]:
    """Per institution the tables of agent.toml. The first three studies and the GLM parties share institutions."""
    names = {"bmi": "PM_BMI_CONTINUOUS", "lab_gluc": "LAB_GLUC_ADJUSTED", "bmi_class": "PM_BMI_CATEGORICAL"}
    renamed = "[datasets.cnsim.columns]\n" + "".join(f'{ours} = "{theirs}"\n' for ours, theirs in names.items())
    out = {
        f"site-{place}": {
            "cnsim": f'path = "{DATA}/cnsim/{study}.csv"\n{renamed}',
            **{name: f'path = "{DATA}/v6-glm/{folder}/{part}.csv"\n' for name, folder in FOLDERS.items()},
        }
        for place, (study, part) in enumerate(zip(CNSIM, "abc", strict=True))
    }
    for place, hospital in enumerate(HEART):
        out.setdefault(f"site-{place}", {})["heart"] = f'path = "{DATA}/uci-heart/{hospital}.csv"\n'
    return out


def glm_pooled(folder: str) -> pd.DataFrame:
    frame = pd.concat([pd.read_csv(DATA / "v6-glm" / folder / f"{part}.csv") for part in "abc"], ignore_index=True)
    return frame.rename(columns=str.lower)


def numbers(result: Result) -> dict[str, float]:
    """Every number of a result by name: keys, output and, for a model, which of its numbers."""
    out = {}
    for output in result.table.outputs:
        for row, keys in enumerate(result.table.row_keys):
            name = " ".join((output.name, *keys))
            value = output.value[row]
            if output.value.ndim == 1:
                out[name] = float(value)
                out[f"{name} se"] = float(output.standard_error[row])
                continue
            for place, part in enumerate(output.bins):
                out[f"{name} {part.label}"] = float(value[place])
                out[f"{name} {part.label} se"] = float(output.standard_error[row, place])
                out[f"{name} {part.label} low"] = float(output.low[row, place])
                out[f"{name} {part.label} high"] = float(output.high[row, place])
    return out


class Asker:
    """Asks one dataset, several statistics at once, and pairs what comes back with references of the same names."""

    def __init__(self, session: Session, name: str) -> None:
        self.session, self.name, self.table = session, name, session.table(name)

    def python(
        self, references: Numbers, where: Callable[[Table], Any] = lambda t: t, **outputs: Measure
    ) -> Iterator[Case]:
        """Ask through the expression API."""
        result = self.session.query(where(self.table).agg(n=count(), **outputs), rho=0.001)
        yield from self._pair(result, references)

    def sql(self, references: Numbers, select: str, rest: str = "") -> Iterator[Case]:
        """Ask through SQL."""
        yield from self._pair(self.session.query(f"SELECT {select} FROM {self.name} {rest}", rho=0.001), references)

    def quantiles(self, name: str, values: pd.Series, shares: Sequence[float]) -> Iterator[Case]:
        """Ask for quantiles of a column; all of them come from one tree."""
        column = ColumnRef(name)
        result = self.session.query(
            self.table.agg(n=count(), **{f"q{share:g}".replace(".", "_"): column.quantile(share) for share in shares}),
            rho=0.001,
        )
        found, kind = numbers(result), self.session.describe(self.name).numeric(name)
        edges = tree_of(kind).levels[-1]
        for share in shares:
            value = found[f"q{share:g}".replace(".", "_")]
            reference = float(values.quantile(share))
            yield Case(f"{self.name}: quantile {share:g} of {name}", reference, value, leaf=edges[1] - edges[0])

    def _pair(self, result: Result, references: Numbers) -> Iterator[Case]:
        found = numbers(result)
        for name, reference in references.items():
            yield Case(f"{self.name}: {name}", float(reference), found[name])


def cases() -> Iterator[Case]:
    """Run everything. Takes some seconds."""
    schemas = [CNSIM_ALL, HEART_ALL, TREES, AWARDS, ADMISSIONS, LIVES]
    patch = pytest.MonkeyPatch()
    with tempfile.TemporaryDirectory() as folder, consortium(Path(folder), schemas, files()) as running:
        remove_noise(patch)
        try:
            with running.session() as session:
                yield from cnsim(Asker(session, "cnsim"))
                yield from heart(Asker(session, "heart"))
                yield from derived(Asker(session, "heart"))
                yield from trees(Asker(session, "trees"))
                yield from awards(Asker(session, "awards"))
                yield from admissions(Asker(session, "admissions"))
                yield from lives(Asker(session, "lives"))
        finally:
            patch.undo()


def described(name: str, values: pd.Series) -> dict[str, float]:
    """References of the one-column statistics, under the default names of SQL."""
    return {
        f"count_{name}": values.count(),
        f"sum_{name}": values.sum(),
        f"avg_{name}": values.mean(),
        f"variance_{name}": values.var(),
        f"var_pop_{name}": values.var(ddof=0),
        f"stddev_{name}": values.std(),
        f"stddev_pop_{name}": values.std(ddof=0),
        f"skewness_{name}": values.skew(),
        f"kurtosis_{name}": values.kurt(),
        "count_if": values.isna().sum(),
        f"avg_ln_{name}_by_{name}": np.log(values * values + 1).mean(),
    }


def described_sql(name: str) -> str:
    functions = "COUNT SUM AVG VARIANCE VAR_POP STDDEV STDDEV_POP SKEWNESS KURTOSIS"
    plain = [f"{function}({name})" for function in functions.split()]
    return ", ".join([*plain, f"COUNT_IF({name} IS NULL)", f"AVG(LN({name} * {name} + 1))"])


def histogram(name: str, values: pd.Series, lower: float, upper: float, bins: int) -> dict[str, float]:
    counts, edges = np.histogram(values.dropna(), np.linspace(lower, upper, bins + 1))
    ends = [")"] * (bins - 1) + ["]"]
    labels = [f"[{low:.12g}, {high:.12g}{end}" for (low, high), end in zip(pairwise(edges), ends, strict=True)]
    return {f"histogram_{name} {label}": n for label, n in zip(labels, counts, strict=True)}


def pair_references(y: str, x: str, frame: pd.DataFrame) -> dict[str, float]:
    both = frame[[y, x]].dropna()
    line = stats.linregress(both[x], both[y])
    return {
        f"corr_{y}_{x}": both[y].corr(both[x]),
        f"covar_samp_{y}_{x}": both[y].cov(both[x]),
        f"covar_pop_{y}_{x}": both[y].cov(both[x], ddof=0),
        f"regr_slope_{y}_{x}": line.slope,
        f"regr_intercept_{y}_{x}": line.intercept,
        f"regr_r2_{y}_{x}": line.rvalue**2,
        f"regr_count_{y}_{x}": len(both),
    }


def pair_sql(y: str, x: str) -> str:
    functions = ("CORR", "COVAR_SAMP", "COVAR_POP", "REGR_SLOPE", "REGR_INTERCEPT", "REGR_R2", "REGR_COUNT")
    return ", ".join(f"{function}({y}, {x})" for function in functions)


def model_references(output: str, fitted: Any, names: Mapping[str, str]) -> dict[str, float]:
    """References of a linear model: coefficients, standard errors, intervals and sums of squares."""
    out = {}
    bounds = fitted.conf_int()
    for theirs, ours in names.items():
        out[f"{output} {ours}"] = fitted.params[theirs]
        out[f"{output} {ours} se"] = fitted.bse[theirs]
        out[f"{output} {ours} low"], out[f"{output} {ours} high"] = bounds.loc[theirs]
    out[f"{output} deviance"] = fitted.ssr
    out[f"{output} residual_df"] = fitted.df_resid
    out[f"{output} r_squared"] = fitted.rsquared
    return out


def test_references(output: str, found: Any) -> dict[str, float]:
    out = {f"{output} statistic": found.statistic, f"{output} p_value": found.pvalue}
    return out | ({f"{output} df": found.df} if hasattr(found, "df") else {})


def cnsim(ask: Asker) -> Iterator[Case]:
    frame = cnsim_pooled().rename(columns={"LAB_GLUC_ADJUSTED": "lab_gluc", "PM_BMI_CATEGORICAL": "bmi_class"})
    for name in ("lab_tsc", "lab_trig", "lab_hdl", "lab_gluc", "bmi"):
        yield from ask.sql(described(name, frame[name]), described_sql(name))
    for name in ("lab_hdl", "lab_tsc", "bmi"):
        yield from ask.quantiles(name, frame[name].dropna(), (0.05, 0.25, 0.5, 0.75, 0.95))
    yield from ask.sql({"avg_lab_tsc": 5.85192485623003, "count_lab_tsc": 7825}, "AVG(lab_tsc), COUNT(lab_tsc)")
    yield from ask.sql({"count": 1554}, "COUNT(*)", "WHERE lab_tsc IS NULL")
    ways = pd.crosstab([frame.gender, frame.dis_diab], frame.bmi_class).stack()
    crosstab = {f"n {int(g)} {int(d)} {int(b)}": value for (g, d, b), value in ways.items()}
    yield from ask.sql(crosstab, "COUNT(*) AS n", "GROUP BY gender, dis_diab, bmi_class")
    yield from ask.sql(histogram("bmi", frame.bmi, 5, 80, 15), "HISTOGRAM(bmi, 15), COUNT(*)")
    for y, x in (("lab_tsc", "lab_trig"), ("lab_hdl", "bmi")):
        yield from ask.sql(pair_references(y, x, frame), pair_sql(y, x))
    complete = frame[["lab_tsc", "lab_trig"]].dropna()
    fitted = sm.OLS(complete.lab_tsc, sm.add_constant(complete[["lab_trig"]])).fit()
    names = {"const": "intercept", "lab_trig": "lab_trig"}
    yield from ask.python(
        {**model_references("fit", fitted, names), "fit residual_df": 7798},
        fit=linear_model(_.lab_tsc, on=[_.lab_trig]),
    )
    columns = ["lab_tsc", "lab_trig", "lab_hdl", "bmi"]
    four = frame[columns].dropna()
    covariances, correlations = four.cov(), four.corr()
    yield from ask.python(
        {f"m {x} {y}": covariances.loc[x, y] for i, x in enumerate(columns) for y in columns[i:]}
        | {f"r {x} {y}": correlations.loc[x, y] for i, x in enumerate(columns) for y in columns[i + 1 :]},
        m=covariance_matrix(_.lab_tsc, _.lab_trig, _.lab_hdl, _.bmi),
        r=correlation_matrix(_.lab_tsc, _.lab_trig, _.lab_hdl, _.bmi),
    )
    yield from ask.python(components(four), pc=principal_components(_.lab_tsc, _.lab_trig, _.lab_hdl, _.bmi))
    by = {key: group.lab_hdl.dropna() for key, group in frame.groupby("gender")}
    welch = stats.ttest_ind(by[0], by[1], equal_var=False)
    yield from ask.python(
        test_references("welch", welch)
        | {"welch difference": by[0].mean() - by[1].mean(), "welch difference low": welch.confidence_interval().low}
        | test_references("student", stats.ttest_ind(by[0], by[1]))
        | test_references("anova", stats.f_oneway(*(g.lab_hdl.dropna() for _k, g in frame.groupby("bmi_class"))))
        | test_references("one", stats.ttest_1samp(frame.lab_hdl.dropna(), 1.5)),
        welch=t_test(_.lab_hdl, by=_.gender),
        student=t_test(_.lab_hdl, by=_.gender, equal_variances=True),
        anova=anova(_.lab_hdl, _.bmi_class),
        one=t_test(_.lab_hdl, mean=1.5),
    )
    crossed = stats.chi2_contingency(pd.crosstab(frame.gender, frame.bmi_class), correction=False)
    yield from ask.python(
        {"chi statistic": crossed.statistic, "chi p_value": crossed.pvalue, "chi df": crossed.dof},
        chi=independence_test(_.gender, _.bmi_class),
    )


def components(frame: pd.DataFrame) -> dict[str, float]:
    """References of principal components: each vector's largest entry is positive."""
    values, vectors = np.linalg.eigh(frame.cov().to_numpy())
    out = {}
    for place in range(len(values)):
        vector = vectors[:, -1 - place]
        vector = vector * np.sign(vector[np.abs(vector).argmax()])
        out[f"pc {place + 1} variance"] = values[-1 - place]
        out |= {f"pc {place + 1} {name}": each for name, each in zip(frame.columns, vector, strict=True)}
    return out


def heart(ask: Asker) -> Iterator[Case]:
    frame = heart_pooled()
    frame["sex"] = frame["sex"].map({"female": "0", "male": "1"})
    for name in ("age", "chol", "trestbps", "thalach", "oldpeak"):
        yield from ask.sql(described(name, frame[name]), described_sql(name))
    for name in ("age", "thalach"):
        yield from ask.quantiles(name, frame[name].dropna(), (0.1, 0.5, 0.9))
    persons = {"count_patient_id": frame.patient_id.nunique(), "n": frame.patient_id.nunique()}
    yield from ask.sql(persons, "COUNT(DISTINCT patient_id) AS n, COUNT(DISTINCT patient_id) AS count_patient_id")
    grouped = {
        f"{output} {key}": value
        for key, rows in frame.groupby("sex")
        for output, value in {"n": len(rows), "age": rows.age.mean(), "sd": rows.chol.std()}.items()
    }
    yield from ask.sql(grouped, "sex, COUNT(*) AS n, AVG(age) AS age, STDDEV(chol) AS sd", "GROUP BY sex")
    yield from ask.sql(pair_references("thalach", "age", frame), pair_sql("thalach", "age"))
    complete = frame[["thalach", "age", "trestbps", "sex", "cp"]].dropna()
    design = sm.add_constant(complete[["age", "trestbps"]]).assign(
        male=(complete.sex == "1") * 1.0, **{f"cp={kind}": (complete.cp == kind) * 1.0 for kind in (2, 3, 4)}
    )
    names = {name: name for name in ("age", "trestbps", "cp=2", "cp=3", "cp=4")}
    yield from ask.python(
        model_references(
            "fit", sm.OLS(complete.thalach, design).fit(), {"const": "intercept", "male": "sex=1", **names}
        ),
        fit=linear_model(_.thalach, on=[_.age, _.trestbps, _.sex, _.cp]),
    )
    pairs = frame[["trestbps", "thalach"]].dropna()
    by = {key: group.thalach.dropna() for key, group in frame.groupby("sex")}
    yield from ask.python(
        test_references("paired", stats.ttest_rel(pairs.thalach, pairs.trestbps))
        | {"paired difference": (pairs.thalach - pairs.trestbps).mean()}
        | test_references("welch", stats.ttest_ind(by["0"], by["1"], equal_var=False))
        | test_references("anova", stats.f_oneway(*(g.thalach.dropna() for _k, g in frame.groupby("cp")))),
        paired=paired_t_test(_.thalach, _.trestbps),
        welch=t_test(_.thalach, by=_.sex),
        anova=anova(_.thalach, _.cp),
    )
    crossed = stats.chi2_contingency(pd.crosstab(frame.cp, frame.num), correction=False)
    yield from ask.python(
        {"chi statistic": crossed.statistic, "chi p_value": crossed.pvalue}, chi=independence_test(_.cp, _.num)
    )


def derived(ask: Asker) -> Iterator[Case]:
    """Values computed row by row, in models and tests as anywhere else."""
    frame = heart_pooled().assign(square=lambda f: f.age**2, log_age=lambda f: np.log(f.age))
    complete = frame[["thalach", "age", "square"]].dropna()
    fitted = sm.OLS(complete.thalach, sm.add_constant(complete[["age", "square"]])).fit()
    rate = frame.chol / frame.age
    by = {key: rate[frame.sex == key].dropna() for key in ("female", "male")}
    product = pd.DataFrame({"a": frame.age * frame.chol, "b": frame.thalach}).dropna()
    yield from ask.python(
        model_references("fit", fitted, {"const": "intercept", "age": "age", "square": "age_by_age"})
        | test_references("rates", stats.ttest_ind(by["female"], by["male"], equal_var=False))
        | {
            "share": (frame.age >= 50).mean(),
            "logs": frame.log_age.mean(),
            "spread": frame.log_age.std(),
            "r": product.a.corr(product.b),
        },
        fit=linear_model(_.thalach, on=[_.age, _.age**2]),
        rates=t_test((_.chol / _.age.clip(1, 120)).clip(0, 50), by=_.sex),
        share=(_.age >= 50).mean(),
        logs=_.age.clip(1, 120).log().mean(),
        spread=_.age.clip(1, 120).log().std(),
        r=correlation(_.age * _.chol, _.thalach),
    )
    older = frame.assign(old=frame.age >= 55).dropna(subset=["chol"])
    groups = [older.chol[older.old], older.chol[~older.old]]
    yield from ask.python(
        test_references("anova", stats.f_oneway(*groups)),
        anova=anova(_.chol, case((_.age >= 55, "old"), otherwise="young")),
    )


def trees(ask: Asker) -> Iterator[Case]:
    frame = glm_pooled("gaussian")
    fitted = sm.OLS(frame.volume, sm.add_constant(frame[["girth"]])).fit()
    names = {"const": "intercept", "girth": "girth"}
    yield from ask.python(
        model_references("fit", fitted, names)
        | {
            "b": fitted.params["girth"],
            "a": fitted.params["const"],
            "r2": fitted.rsquared,
            "pairs": len(frame),
            "r": frame.volume.corr(frame.height),
            "c": frame.volume.cov(frame.height),
        },
        fit=linear_model(_.volume, on=[_.girth]),
        b=slope(_.volume, _.girth),
        a=intercept(_.volume, _.girth),
        r2=r_squared(_.volume, _.girth),
        pairs=count_pairs(_.volume, _.girth),
        r=correlation(_.volume, _.height),
        c=covariance(_.volume, _.height),
    )
    both = sm.OLS(frame.volume, sm.add_constant(frame[["girth", "height"]])).fit()
    yield from ask.python(
        model_references("two", both, {**names, "height": "height"}), two=linear_model(_.volume, on=[_.girth, _.height])
    )


def awards(ask: Asker) -> Iterator[Case]:
    frame = glm_pooled("poisson")
    yield from ask.sql(described("math", frame.math), described_sql("math"))
    design = sm.add_constant(frame[["math"]].astype(float)).assign(
        academic=(frame["prog"] == "Academic") * 1.0, vocational=(frame["prog"] == "Vocational") * 1.0
    )
    names = {"const": "intercept", "math": "math", "academic": "prog=Academic", "vocational": "prog=Vocational"}
    yield from ask.python(
        model_references("fit", sm.OLS(frame.num_awards, design).fit(), names),
        fit=linear_model(_.num_awards, on=[_.math, _.prog]),
    )
    groups = [group.num_awards for _key, group in frame.groupby("prog")]
    yield from ask.python(test_references("anova", stats.f_oneway(*groups)), anova=anova(_.num_awards, _.prog))


def admissions(ask: Asker) -> Iterator[Case]:
    frame = glm_pooled("binomial")
    crossed = stats.chi2_contingency(pd.crosstab(frame.admit, frame["rank"]), correction=False)
    by = dict(list(frame.groupby("admit")))
    yield from ask.python(
        {"chi statistic": crossed.statistic, "chi p_value": crossed.pvalue}
        | test_references("gpa", stats.ttest_ind(by[0].gpa, by[1].gpa, equal_var=False))
        | test_references("gre", stats.ttest_ind(by[0].gre, by[1].gre)),
        chi=independence_test(_.admit, _["rank"]),
        gpa=t_test(_.gpa, by=_.admit),
        gre=t_test(_.gre, by=_.admit, equal_variances=True),
    )
    two = frame[(frame["rank"] == 1) | (frame["rank"] == 4)]
    welch = stats.ttest_ind(two[two["rank"] == 1].gpa, two[two["rank"] == 4].gpa, equal_var=False)
    yield from ask.python(test_references("ends", welch), ends=t_test(_.gpa, by=_["rank"], groups=["1", "4"]))


def lives(ask: Asker) -> Iterator[Case]:
    """Times are those of the grid: the bin's number."""
    frame = glm_pooled("survival")
    edges = np.linspace(0, 12, 49)
    when = np.clip(np.searchsorted(edges, frame.eventtime, side="right") - 1, 0, 47)
    curve = SurvfuncRight(when, frame.status)
    references = {}
    labels = [f"[{low:.12g}, {high:.12g})" for low, high in pairwise(edges)]
    for time, alive, error in zip(curve.surv_times, curve.surv_prob, curve.surv_prob_se, strict=True):
        references[f"alive {labels[int(time)]}"] = alive
        references[f"alive {labels[int(time)]} se"] = error
    statistic, p_value = survdiff(when, frame.status, frame.sex)
    yield from ask.python(
        references | {"rank statistic": statistic, "rank p_value": p_value},
        alive=survival(_.eventtime, _.status, happened="1", bins=48, population=True),
        rank=log_rank(_.eventtime, _.status, happened="1", by=_.sex, bins=48),
    )

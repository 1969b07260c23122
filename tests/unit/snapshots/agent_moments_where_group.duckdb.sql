WITH selected AS (
  SELECT
    "_row",
    "_person",
    "_rows",
    "age",
    "chol",
    "sex"
  FROM local_rows
  WHERE
    (
      (
        "age" >= CAST(18.0e0 AS DOUBLE)
      )
      AND (
        (
          (
            "sex" = 1
          ) OR (
            NOT (
              "cp" IN (0, 3)
            )
          )
        )
      )
      AND (
        NOT (
          "chol" IS NULL
        )
      )
    )
    AND NOT "age" IS NULL
    AND NOT "sex" IS NULL
), kept AS (
  SELECT
    "age",
    "chol",
    "sex"
  FROM selected
  WHERE
    "_rows" <= 3
  UNION ALL
  SELECT
    "age",
    "chol",
    "sex"
  FROM (
    SELECT
      "age",
      "chol",
      "sex",
      ROW_NUMBER() OVER (PARTITION BY "_person" ORDER BY HASH(XOR("_row", CAST(? AS BIGINT))), "_row") AS _place
    FROM selected
    WHERE
      "_rows" > 3
  ) AS drawn
  WHERE
    "_place" <= 3
), cells AS (
  SELECT
    (
      0
    ) * 2 + "sex" AS _cell,
    CASE
      WHEN "age" <= CAST(0.0e0 AS DOUBLE)
      THEN CAST(-1.0e0 AS DOUBLE)
      WHEN "age" >= CAST(120.0e0 AS DOUBLE)
      THEN CAST(1.0e0 AS DOUBLE)
      ELSE (
        "age" - CAST(60.0e0 AS DOUBLE)
      ) / CAST(60.0e0 AS DOUBLE)
    END AS _u_age,
    CASE
      WHEN "chol" <= CAST(-0.5e0 AS DOUBLE)
      THEN CAST(-1.0e0 AS DOUBLE)
      WHEN "chol" >= CAST(600.7e0 AS DOUBLE)
      THEN CAST(1.0e0 AS DOUBLE)
      ELSE (
        "chol" - CAST(300.1e0 AS DOUBLE)
      ) / CAST(300.6e0 AS DOUBLE)
    END AS _u_chol,
    "age",
    "chol"
  FROM kept
)
SELECT
  0 AS part,
  "_cell" AS cell,
  0 AS bin,
  COUNT(*) AS s0,
  COALESCE(
    SUM(
      CAST(FLOOR("_u_age" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)) AS BIGINT)
    ),
    0
  ) AS s1,
  COUNT("chol") AS s2,
  COALESCE(
    SUM(
      CAST(FLOOR("_u_chol" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)) AS BIGINT)
    ),
    0
  ) AS s3,
  COALESCE(
    SUM(
      CAST(FLOOR("_u_chol" * "_u_chol" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)) AS BIGINT)
    ),
    0
  ) AS s4
FROM cells
GROUP BY
  2

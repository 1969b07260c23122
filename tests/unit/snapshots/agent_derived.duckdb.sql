WITH derived1 AS (
  SELECT
    *,
    (
      (
        (
          (
            CASE
              WHEN "chol" <= CAST(-0.5e0 AS DOUBLE)
              THEN CAST(-0.5e0 AS DOUBLE)
              WHEN "chol" >= CAST(600.7e0 AS DOUBLE)
              THEN CAST(600.7e0 AS DOUBLE)
              ELSE "chol"
            END
          ) + CAST(1e-124 AS DOUBLE)
        ) - CAST(1e-124 AS DOUBLE)
      ) / NULLIF(
        (
          CASE
            WHEN "age" <= CAST(0.0e0 AS DOUBLE)
            THEN CAST(0.0e0 AS DOUBLE)
            WHEN "age" >= CAST(120.0e0 AS DOUBLE)
            THEN CAST(120.0e0 AS DOUBLE)
            ELSE "age"
          END
        ),
        CAST(0.0e0 AS DOUBLE)
      )
    ) AS "_part1",
    (
      CASE
        WHEN "chol" <= CAST(-0.5e0 AS DOUBLE)
        THEN CAST(-0.5e0 AS DOUBLE)
        WHEN "chol" >= CAST(600.7e0 AS DOUBLE)
        THEN CAST(600.7e0 AS DOUBLE)
        ELSE "chol"
      END
    ) AS "_part2",
    (
      CASE
        WHEN (
          "sex" = 1
        )
        THEN CAST(1.0e0 AS DOUBLE)
        WHEN NOT (
          "sex" = 1
        )
        THEN CAST(0.0e0 AS DOUBLE)
      END
    ) AS "truth"
  FROM local_rows
), derived2 AS (
  SELECT
    *,
    (
      CASE
        WHEN "_part1" <= CAST(0.0e0 AS DOUBLE)
        THEN CAST(0.0e0 AS DOUBLE)
        WHEN "_part1" >= CAST(5.0e0 AS DOUBLE)
        THEN CAST(5.0e0 AS DOUBLE)
        ELSE "_part1"
      END
    ) AS "ratio",
    (
      CASE WHEN "_part2" > CAST(0.0e0 AS DOUBLE) THEN LN("_part2") END
    ) AS "_part3"
  FROM derived1
), derived3 AS (
  SELECT
    *,
    (
      CASE
        WHEN "_part3" <= CAST(-1.0e0 AS DOUBLE)
        THEN CAST(-1.0e0 AS DOUBLE)
        WHEN "_part3" >= CAST(7.0e0 AS DOUBLE)
        THEN CAST(7.0e0 AS DOUBLE)
        ELSE "_part3"
      END
    ) AS "level",
    (
      CASE WHEN "ratio" > CAST(1.0e0 AS DOUBLE) THEN 0 ELSE 1 END
    ) AS "band"
  FROM derived2
), selected AS (
  SELECT
    "_row",
    "_person",
    "_rows",
    "band",
    "level",
    "ratio",
    "truth"
  FROM derived3
  WHERE
    "ratio" < CAST(4.0e0 AS DOUBLE)
    AND NOT "age" IS NULL
    AND NOT "band" IS NULL
    AND (
      NOT "ratio" IS NULL OR NOT "level" IS NULL OR NOT "truth" IS NULL
    )
), kept AS (
  SELECT
    "band",
    "level",
    "ratio",
    "truth"
  FROM selected
  WHERE
    "_rows" <= 3
  UNION ALL
  SELECT
    "band",
    "level",
    "ratio",
    "truth"
  FROM (
    SELECT
      "band",
      "level",
      "ratio",
      "truth",
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
    ) * 2 + "band" AS _cell,
    CASE
      WHEN "ratio" <= CAST(0.0e0 AS DOUBLE)
      THEN CAST(-1.0e0 AS DOUBLE)
      WHEN "ratio" >= CAST(5.0e0 AS DOUBLE)
      THEN CAST(1.0e0 AS DOUBLE)
      ELSE (
        "ratio" - CAST(2.5e0 AS DOUBLE)
      ) / CAST(2.5e0 AS DOUBLE)
    END AS _u_ratio,
    CASE
      WHEN "level" <= CAST(-1.0e0 AS DOUBLE)
      THEN CAST(-1.0e0 AS DOUBLE)
      WHEN "level" >= CAST(6.3980956418561155e0 AS DOUBLE)
      THEN CAST(1.0e0 AS DOUBLE)
      ELSE (
        "level" - CAST(2.6990478209280577e0 AS DOUBLE)
      ) / CAST(3.6990478209280577e0 AS DOUBLE)
    END AS _u_level,
    CASE
      WHEN "truth" <= CAST(0.0e0 AS DOUBLE)
      THEN CAST(-1.0e0 AS DOUBLE)
      WHEN "truth" >= CAST(1.0e0 AS DOUBLE)
      THEN CAST(1.0e0 AS DOUBLE)
      ELSE (
        "truth" - CAST(0.5e0 AS DOUBLE)
      ) / CAST(0.5e0 AS DOUBLE)
    END AS _u_truth,
    "ratio",
    "level",
    "truth"
  FROM kept
)
SELECT
  0 AS part,
  "_cell" AS cell,
  0 AS bin,
  COUNT("ratio") AS s0,
  COALESCE(
    SUM(
      CAST(FLOOR("_u_ratio" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)) AS BIGINT)
    ),
    0
  ) AS s1,
  COUNT("level") AS s2,
  COALESCE(
    SUM(
      CAST(FLOOR("_u_level" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)) AS BIGINT)
    ),
    0
  ) AS s3,
  COALESCE(
    SUM(
      CAST(FLOOR(
        "_u_level" * "_u_level" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s4,
  COUNT("truth") AS s5,
  COALESCE(
    SUM(
      CAST(FLOOR("_u_truth" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)) AS BIGINT)
    ),
    0
  ) AS s6
FROM cells
GROUP BY
  2

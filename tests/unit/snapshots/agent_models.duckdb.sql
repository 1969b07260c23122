WITH selected AS (
  SELECT
    "_row",
    "_person",
    "_rows",
    "age",
    "chol",
    "cp",
    "sex"
  FROM local_rows
  WHERE
    NOT "age" IS NULL
    AND (
      (
        NOT "chol" IS NULL AND NOT "sex" IS NULL
      )
      OR (
        NOT "age" IS NULL AND NOT "chol" IS NULL AND NOT "sex" IS NULL
      )
      OR (
        NOT "chol" IS NULL AND NOT "cp" IS NULL
      )
      OR (
        NOT "chol" IS NULL AND NOT "cp" IS NULL AND NOT "sex" IS NULL
      )
      OR (
        NOT "cp" IS NULL AND NOT "sex" IS NULL
      )
    )
), kept AS (
  SELECT
    "age",
    "chol",
    "cp",
    "sex"
  FROM selected
  WHERE
    "_rows" <= 3
  UNION ALL
  SELECT
    "age",
    "chol",
    "cp",
    "sex"
  FROM (
    SELECT
      "age",
      "chol",
      "cp",
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
    0 AS _cell,
    CASE
      WHEN "chol" <= CAST(-0.5e0 AS DOUBLE)
      THEN CAST(-1.0e0 AS DOUBLE)
      WHEN "chol" >= CAST(600.7e0 AS DOUBLE)
      THEN CAST(1.0e0 AS DOUBLE)
      ELSE (
        "chol" - CAST(300.1e0 AS DOUBLE)
      ) / CAST(300.6e0 AS DOUBLE)
    END AS _u_chol,
    CASE
      WHEN "age" <= CAST(0.0e0 AS DOUBLE)
      THEN CAST(-1.0e0 AS DOUBLE)
      WHEN "age" >= CAST(120.0e0 AS DOUBLE)
      THEN CAST(1.0e0 AS DOUBLE)
      ELSE (
        "age" - CAST(60.0e0 AS DOUBLE)
      ) / CAST(60.0e0 AS DOUBLE)
    END AS _u_age,
    "chol",
    "sex",
    "age",
    "cp"
  FROM kept
)
SELECT
  0 AS part,
  "_cell" AS cell,
  0 AS bin,
  COUNT(CASE WHEN NOT "chol" IS NULL AND NOT "sex" IS NULL THEN 1 END) AS s0,
  COALESCE(
    SUM(
      CAST(FLOOR(
        CASE WHEN NOT "chol" IS NULL AND NOT "sex" IS NULL THEN "_u_age" END * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s1,
  COUNT(CASE WHEN "sex" = 1 AND NOT "chol" IS NULL THEN 1 END) AS s2,
  COALESCE(
    SUM(
      CAST(FLOOR(
        CASE WHEN NOT "sex" IS NULL THEN "_u_chol" END * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s3,
  COALESCE(
    SUM(
      CAST(FLOOR(
        CASE WHEN NOT "chol" IS NULL AND NOT "sex" IS NULL THEN "_u_age" * "_u_age" END * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s4,
  COALESCE(
    SUM(
      CAST(FLOOR(
        CASE WHEN "sex" = 1 AND NOT "chol" IS NULL THEN "_u_age" END * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s5,
  COALESCE(
    SUM(
      CAST(FLOOR(
        CASE WHEN NOT "sex" IS NULL THEN "_u_age" * "_u_chol" END * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s6,
  COALESCE(
    SUM(
      CAST(FLOOR(
        CASE WHEN "sex" = 1 THEN "_u_chol" END * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s7,
  COALESCE(
    SUM(
      CAST(FLOOR(
        CASE WHEN NOT "sex" IS NULL THEN "_u_chol" * "_u_chol" END * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s8,
  COUNT(CASE WHEN "cp" = 1 AND NOT "chol" IS NULL THEN 1 END) AS s9,
  COALESCE(
    SUM(
      CAST(FLOOR(
        CASE WHEN "cp" = 1 THEN "_u_chol" END * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s10,
  COALESCE(
    SUM(
      CAST(FLOOR(
        CASE WHEN "cp" = 1 THEN "_u_chol" * "_u_chol" END * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s11,
  COUNT(CASE WHEN "cp" = 3 AND NOT "chol" IS NULL THEN 1 END) AS s12,
  COALESCE(
    SUM(
      CAST(FLOOR(
        CASE WHEN "cp" = 3 THEN "_u_chol" END * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s13,
  COALESCE(
    SUM(
      CAST(FLOOR(
        CASE WHEN "cp" = 3 THEN "_u_chol" * "_u_chol" END * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s14
FROM cells
GROUP BY
  2
UNION ALL
SELECT
  1 AS part,
  "_cell" AS cell,
  (
    (
      "sex"
    ) * 2 + (
      CASE WHEN "cp" IN (0) THEN 0 ELSE 1 END
    )
  ) * 3 + (
    CASE
      WHEN "chol" < CAST(150.0e0 AS DOUBLE)
      THEN 0
      ELSE CASE WHEN "chol" < CAST(240.0e0 AS DOUBLE) THEN 1 ELSE 2 END
    END
  ) AS bin,
  COUNT(*) AS s0,
  NULL AS s1,
  NULL AS s2,
  NULL AS s3,
  NULL AS s4,
  NULL AS s5,
  NULL AS s6,
  NULL AS s7,
  NULL AS s8,
  NULL AS s9,
  NULL AS s10,
  NULL AS s11,
  NULL AS s12,
  NULL AS s13,
  NULL AS s14
FROM cells
WHERE
  NOT "sex" IS NULL AND NOT "cp" IS NULL AND NOT "chol" IS NULL
GROUP BY
  2,
  3
UNION ALL
SELECT
  2 AS part,
  "_cell" AS cell,
  (
    "sex"
  ) * 4 + (
    "cp"
  ) AS bin,
  COUNT(*) AS s0,
  NULL AS s1,
  NULL AS s2,
  NULL AS s3,
  NULL AS s4,
  NULL AS s5,
  NULL AS s6,
  NULL AS s7,
  NULL AS s8,
  NULL AS s9,
  NULL AS s10,
  NULL AS s11,
  NULL AS s12,
  NULL AS s13,
  NULL AS s14
FROM cells
WHERE
  NOT "sex" IS NULL AND NOT "cp" IS NULL
GROUP BY
  2,
  3

WITH selected AS (
  SELECT
    "_row",
    "_person",
    "_rows",
    "chol",
    "cp",
    "sex"
  FROM local_rows
  WHERE
    NOT "cp" IS NULL
    AND NOT "sex" IS NULL
    AND "sex" IN (1)
    AND "cp" IN (0, 2)
    AND (
      NOT "chol" IS NULL OR NOT "cp" IS NULL
    )
), kept AS (
  SELECT
    "chol",
    "cp",
    "sex"
  FROM selected
  WHERE
    "_rows" <= 1
  UNION ALL
  SELECT
    "chol",
    "cp",
    "sex"
  FROM (
    SELECT
      "chol",
      "cp",
      "sex",
      ROW_NUMBER() OVER (
        PARTITION BY "_person"
        ORDER BY HASHINT8EXTENDED("_row", CAST(%s AS BIGINT)), "_row"
      ) AS _place
    FROM selected
    WHERE
      "_rows" > 1
  ) AS drawn
  WHERE
    "_place" <= 1
), cells AS (
  SELECT
    (
      (
        0
      ) * 1 + CASE "sex" WHEN 1 THEN 0 END
    ) * 2 + CASE "cp" WHEN 0 THEN 0 WHEN 2 THEN 1 END AS _cell,
    "chol",
    "cp"
  FROM kept
)
SELECT
  0 AS part,
  "_cell" AS cell,
  0 AS bin,
  COUNT("chol") AS s0
FROM cells
GROUP BY
  2
UNION ALL
SELECT
  1 AS part,
  "_cell" AS cell,
  CASE
    WHEN "chol" < CAST(150.0e0 AS DOUBLE PRECISION)
    THEN 0
    ELSE CASE WHEN "chol" < CAST(240.0e0 AS DOUBLE PRECISION) THEN 1 ELSE 2 END
  END AS bin,
  COUNT(*) AS s0
FROM cells
WHERE
  NOT "chol" IS NULL
GROUP BY
  2,
  3
UNION ALL
SELECT
  2 AS part,
  "_cell" AS cell,
  "cp" AS bin,
  COUNT(*) AS s0
FROM cells
WHERE
  NOT "cp" IS NULL
GROUP BY
  2,
  3

WITH selected AS (
  SELECT
    "age"
  FROM local_rows
), cells AS (
  SELECT
    0 AS _cell,
    CASE
      WHEN "age" <= CAST(0.0e0 AS DOUBLE)
      THEN CAST(-1.0e0 AS DOUBLE)
      WHEN "age" >= CAST(120.0e0 AS DOUBLE)
      THEN CAST(1.0e0 AS DOUBLE)
      ELSE (
        "age" - CAST(60.0e0 AS DOUBLE)
      ) / CAST(60.0e0 AS DOUBLE)
    END AS _u_age,
    "age"
  FROM selected
)
SELECT
  0 AS part,
  "_cell" AS cell,
  0 AS bin,
  COUNT(*) AS s0,
  COUNT("age") AS s1,
  COALESCE(
    SUM(
      CAST(FLOOR("_u_age" * CAST(137438953472.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)) AS BIGINT)
    ),
    0
  ) AS s2,
  COALESCE(
    SUM(
      CAST(FLOOR("_u_age" * "_u_age" * CAST(137438953472.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)) AS BIGINT)
    ),
    0
  ) AS s3
FROM cells
GROUP BY
  2

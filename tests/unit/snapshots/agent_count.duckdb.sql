WITH selected AS (
  SELECT
    "_row",
    "_person",
    "_rows"
  FROM local_rows
), kept AS (
  SELECT
    "_row"
  FROM selected
  WHERE
    "_rows" <= 3
  UNION ALL
  SELECT
    "_row"
  FROM (
    SELECT
      "_row",
      ROW_NUMBER() OVER (PARTITION BY "_person" ORDER BY HASH(XOR("_row", CAST(? AS BIGINT))), "_row") AS _place
    FROM selected
    WHERE
      "_rows" > 3
  ) AS drawn
  WHERE
    "_place" <= 3
), cells AS (
  SELECT
    0 AS _cell
  FROM kept
)
SELECT
  0 AS part,
  "_cell" AS cell,
  0 AS bin,
  COUNT(*) AS s0
FROM cells
GROUP BY
  2

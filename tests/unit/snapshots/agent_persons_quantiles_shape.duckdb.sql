WITH selected AS (
  SELECT
    "_row",
    "_person",
    "_rows",
    "age",
    "chol"
  FROM local_rows
  WHERE
    "chol" > CAST(100.0e0 AS DOUBLE) AND NOT "age" IS NULL
), kept AS (
  SELECT
    "age",
    "chol",
    "_person"
  FROM selected
  WHERE
    "_rows" <= 3
  UNION ALL
  SELECT
    "age",
    "chol",
    "_person"
  FROM (
    SELECT
      "age",
      "chol",
      "_person",
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
    "chol",
    "_person",
    CAST(LEAST(
      GREATEST(
        FLOOR((
          "age" - CAST(0.0e0 AS DOUBLE)
        ) * CAST(1.0e0 AS DOUBLE)),
        CAST(0.0e0 AS DOUBLE)
      ),
      CAST(120.0e0 AS DOUBLE)
    ) AS BIGINT) AS _g_3
  FROM kept
)
SELECT
  0 AS part,
  "_cell" AS cell,
  0 AS bin,
  COUNT(DISTINCT "_person") AS s0,
  COUNT("chol") AS s1,
  COALESCE(
    SUM(
      CAST(FLOOR("_u_chol" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)) AS BIGINT)
    ),
    0
  ) AS s2,
  COALESCE(
    SUM(
      CAST(FLOOR("_u_chol" * "_u_chol" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)) AS BIGINT)
    ),
    0
  ) AS s3,
  COALESCE(
    SUM(
      CAST(FLOOR(
        "_u_chol" * "_u_chol" * "_u_chol" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s4,
  COUNT(*) AS s5,
  COALESCE(
    SUM(
      CAST(FLOOR("_u_age" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)) AS BIGINT)
    ),
    0
  ) AS s6,
  COALESCE(
    SUM(
      CAST(FLOOR("_u_age" * "_u_age" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)) AS BIGINT)
    ),
    0
  ) AS s7,
  COALESCE(
    SUM(
      CAST(FLOOR(
        "_u_age" * "_u_age" * "_u_age" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s8,
  COALESCE(
    SUM(
      CAST(FLOOR(
        "_u_age" * "_u_age" * "_u_age" * "_u_age" * CAST(68719476736.0e0 AS DOUBLE) + CAST(0.5e0 AS DOUBLE)
      ) AS BIGINT)
    ),
    0
  ) AS s9
FROM cells
GROUP BY
  2
UNION ALL
SELECT
  3 AS part,
  "_cell" AS cell,
  CASE
    WHEN "age" < LIST_EXTRACT(
      [
        0.0e0,
        1.0e0,
        2.0e0,
        3.0e0,
        4.0e0,
        5.0e0,
        6.0e0,
        7.0e0,
        8.0e0,
        9.0e0,
        10.0e0,
        11.0e0,
        12.0e0,
        13.0e0,
        14.0e0,
        15.0e0,
        16.0e0,
        17.0e0,
        18.0e0,
        19.0e0,
        20.0e0,
        21.0e0,
        22.0e0,
        23.0e0,
        24.0e0,
        25.0e0,
        26.0e0,
        27.0e0,
        28.0e0,
        29.0e0,
        30.0e0,
        31.0e0,
        32.0e0,
        33.0e0,
        34.0e0,
        35.0e0,
        36.0e0,
        37.0e0,
        38.0e0,
        39.0e0,
        40.0e0,
        41.0e0,
        42.0e0,
        43.0e0,
        44.0e0,
        45.0e0,
        46.0e0,
        47.0e0,
        48.0e0,
        49.0e0,
        50.0e0,
        51.0e0,
        52.0e0,
        53.0e0,
        54.0e0,
        55.0e0,
        56.0e0,
        57.0e0,
        58.0e0,
        59.0e0,
        60.0e0,
        61.0e0,
        62.0e0,
        63.0e0,
        64.0e0,
        65.0e0,
        66.0e0,
        67.0e0,
        68.0e0,
        69.0e0,
        70.0e0,
        71.0e0,
        72.0e0,
        73.0e0,
        74.0e0,
        75.0e0,
        76.0e0,
        77.0e0,
        78.0e0,
        79.0e0,
        80.0e0,
        81.0e0,
        82.0e0,
        83.0e0,
        84.0e0,
        85.0e0,
        86.0e0,
        87.0e0,
        88.0e0,
        89.0e0,
        90.0e0,
        91.0e0,
        92.0e0,
        93.0e0,
        94.0e0,
        95.0e0,
        96.0e0,
        97.0e0,
        98.0e0,
        99.0e0,
        100.0e0,
        101.0e0,
        102.0e0,
        103.0e0,
        104.0e0,
        105.0e0,
        106.0e0,
        107.0e0,
        108.0e0,
        109.0e0,
        110.0e0,
        111.0e0,
        112.0e0,
        113.0e0,
        114.0e0,
        115.0e0,
        116.0e0,
        117.0e0,
        118.0e0,
        119.0e0,
        120.0e0,
        121.0e0
      ],
      "_g_3" + 1
    )
    AND "_g_3" > 0
    THEN "_g_3" - 1
    WHEN "age" >= LIST_EXTRACT(
      [
        0.0e0,
        1.0e0,
        2.0e0,
        3.0e0,
        4.0e0,
        5.0e0,
        6.0e0,
        7.0e0,
        8.0e0,
        9.0e0,
        10.0e0,
        11.0e0,
        12.0e0,
        13.0e0,
        14.0e0,
        15.0e0,
        16.0e0,
        17.0e0,
        18.0e0,
        19.0e0,
        20.0e0,
        21.0e0,
        22.0e0,
        23.0e0,
        24.0e0,
        25.0e0,
        26.0e0,
        27.0e0,
        28.0e0,
        29.0e0,
        30.0e0,
        31.0e0,
        32.0e0,
        33.0e0,
        34.0e0,
        35.0e0,
        36.0e0,
        37.0e0,
        38.0e0,
        39.0e0,
        40.0e0,
        41.0e0,
        42.0e0,
        43.0e0,
        44.0e0,
        45.0e0,
        46.0e0,
        47.0e0,
        48.0e0,
        49.0e0,
        50.0e0,
        51.0e0,
        52.0e0,
        53.0e0,
        54.0e0,
        55.0e0,
        56.0e0,
        57.0e0,
        58.0e0,
        59.0e0,
        60.0e0,
        61.0e0,
        62.0e0,
        63.0e0,
        64.0e0,
        65.0e0,
        66.0e0,
        67.0e0,
        68.0e0,
        69.0e0,
        70.0e0,
        71.0e0,
        72.0e0,
        73.0e0,
        74.0e0,
        75.0e0,
        76.0e0,
        77.0e0,
        78.0e0,
        79.0e0,
        80.0e0,
        81.0e0,
        82.0e0,
        83.0e0,
        84.0e0,
        85.0e0,
        86.0e0,
        87.0e0,
        88.0e0,
        89.0e0,
        90.0e0,
        91.0e0,
        92.0e0,
        93.0e0,
        94.0e0,
        95.0e0,
        96.0e0,
        97.0e0,
        98.0e0,
        99.0e0,
        100.0e0,
        101.0e0,
        102.0e0,
        103.0e0,
        104.0e0,
        105.0e0,
        106.0e0,
        107.0e0,
        108.0e0,
        109.0e0,
        110.0e0,
        111.0e0,
        112.0e0,
        113.0e0,
        114.0e0,
        115.0e0,
        116.0e0,
        117.0e0,
        118.0e0,
        119.0e0,
        120.0e0,
        121.0e0
      ],
      "_g_3" + 2
    )
    AND "_g_3" < 120
    THEN "_g_3" + 1
    ELSE "_g_3"
  END AS bin,
  COUNT(*) AS s0,
  NULL AS s1,
  NULL AS s2,
  NULL AS s3,
  NULL AS s4,
  NULL AS s5,
  NULL AS s6,
  NULL AS s7,
  NULL AS s8,
  NULL AS s9
FROM cells
WHERE
  NOT "age" IS NULL
GROUP BY
  2,
  3

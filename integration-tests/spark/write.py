"""Writes a table with real Spark, and what Spark itself reads back, for the tests in tests/with_spark.rs.

    python3 write.py TABLE EXPECTED

TABLE: a directory of several files with snappy, hive partitions whose values need escaping, nulls, and the scalar and
array types that Squall reads. EXPECTED: a JSON line a row, sorted by id.
"""

import base64
import datetime as dt
import decimal
import json
import sys

from pyspark.sql import SparkSession, types as T

SCHEMA = T.StructType(
    [
        T.StructField("id", T.LongType(), False),
        T.StructField("flag", T.BooleanType()),
        T.StructField("tiny", T.ByteType()),
        T.StructField("short", T.ShortType()),
        T.StructField("int", T.IntegerType()),
        T.StructField("float", T.FloatType()),
        T.StructField("double", T.DoubleType()),
        T.StructField("text", T.StringType()),
        T.StructField("blob", T.BinaryType()),
        T.StructField("price", T.DecimalType(9, 2)),
        T.StructField("big", T.DecimalType(30, 5)),
        T.StructField("day", T.DateType()),
        T.StructField("at", T.TimestampType()),
        T.StructField("vector", T.ArrayType(T.FloatType(), False), False),
        T.StructField("ragged", T.ArrayType(T.IntegerType(), False)),
        T.StructField("words", T.ArrayType(T.StringType())),
        T.StructField("city", T.StringType()),
        T.StructField("part", T.IntegerType()),
    ]
)
# Timestamps of 96 bits hold them, and 64 bits of nanoseconds do not.
EXTREMES = [
    dt.datetime(2, 1, 1),
    dt.datetime(1500, 2, 28, 1, 2, 3),
    dt.datetime(1677, 1, 1),
    dt.datetime(2300, 1, 1, 0, 0, 0, 1),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
]
CITIES = ["Zürich", "a/b=c d%", None, "plain"]


def row(i):
    some = lambda value: None if i % 7 == 3 else value
    return (
        i,
        some(i % 2 == 0),
        some(i % 128),
        some(-i),
        some(i * 1000),
        some(i / 4),
        some(i / 3),
        some(f"row {i} ü"),
        some(bytes([i % 256, 0, 255])),
        some(decimal.Decimal(i) / 100),
        some(decimal.Decimal("1234567890123456789012345.67891") + i),
        some(EXTREMES[i // 9 % 5].date() if i % 9 == 0 else dt.date(1969, 12, 30) + dt.timedelta(days=i)),
        some(EXTREMES[i // 9 % 5] if i % 9 == 0 else dt.datetime(1969, 12, 31, 23, 59, 59, 123456) + dt.timedelta(hours=i)),
        [i + 0.5, -1.0, 0.25],
        some(list(range(i % 4))),
        some([f"w{i}", None, ""]),
        CITIES[i % 4],
        i % 2,
    )


def plain(value):
    """The value as `squall read --arrays values` prints it."""
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="microseconds") + "Z"
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def session():
    return (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "2")
        # Spark's own choice, said all the same: timestamps of 96 bits, in today's calendar.
        .config("spark.sql.parquet.outputTimestampType", "INT96")
        .config("spark.sql.parquet.int96RebaseModeInWrite", "CORRECTED")
        .config("spark.sql.parquet.datetimeRebaseModeInWrite", "CORRECTED")
        .config("spark.sql.parquet.datetimeRebaseModeInRead", "CORRECTED")
        .config("spark.hadoop.parquet.block.size", "4096")
        .config("spark.hadoop.parquet.block.size.row.check.min", "10")
        .config("spark.hadoop.parquet.block.size.row.check.max", "10")
        .getOrCreate()
    )


def dump(table, path):
    with open(path, "w") as out:
        for record in table.orderBy("id").collect():
            line = {name: plain(value) for name, value in record.asDict().items()}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def main(table, expected):
    spark = session()
    rows = spark.createDataFrame([row(i) for i in range(200)], SCHEMA)
    rows.repartition(3, "id").write.partitionBy("city", "part").parquet(table)
    dump(spark.read.parquet(table), expected)


if __name__ == "__main__":
    # Python shows timestamps in the zone of its process.
    import os, time

    os.environ["TZ"] = "UTC"
    time.tzset()
    main(*sys.argv[1:])

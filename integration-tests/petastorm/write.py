"""Writes a dataset with real Petastorm, for the tests in tests/with_petastorm.rs.

    python3 write.py DATASET [--summary | --many-files]

Every codec, and every kind of array that numpy.save writes and numpy.load reads without pickle; nulls; hive partitions;
row-group indexes of both classes. --summary: with a _metadata file in place of the row-group map. --many-files: 16 in
place of 4.
"""

import datetime as dt
import decimal
import os
import sys
import warnings

warnings.simplefilter("ignore")
# Spark's workers need Petastorm too.
os.environ["PYSPARK_PYTHON"] = sys.executable

import numpy as np
from petastorm.codecs import CompressedImageCodec, CompressedNdarrayCodec, NdarrayCodec, ScalarCodec
from petastorm.etl.dataset_metadata import materialize_dataset
from petastorm.etl.rowgroup_indexers import FieldNotNullIndexer, SingleFieldIndexer
from petastorm.etl.rowgroup_indexing import build_rowgroup_index
from petastorm.unischema import Unischema, UnischemaField, dict_to_spark_row
from pyspark.sql import SparkSession, types as T

ROWS = 60


def scalar(name, dtype, spark, nullable=False):
    return UnischemaField(name, dtype, (), ScalarCodec(spark), nullable)


def array(name, dtype, shape, codec=NdarrayCodec, nullable=False):
    return UnischemaField(name, dtype, shape, codec(), nullable)


FIELDS = [
    scalar("id", np.int64, T.LongType()),
    scalar("i8", np.int8, T.ByteType()),
    scalar("u8", np.uint8, T.ShortType()),
    scalar("u32", np.uint32, T.LongType(), True),
    scalar("f16", np.float16, T.FloatType()),
    scalar("f32", np.float32, T.FloatType()),
    scalar("f64", np.float64, T.DoubleType()),
    scalar("flag", np.bool_, T.BooleanType(), True),
    scalar("text", np.str_, T.StringType(), True),
    scalar("price", decimal.Decimal, T.DecimalType(12, 3), True),
    scalar("day", np.datetime64, T.DateType(), True),
    scalar("at", np.datetime64, T.TimestampType()),
    UnischemaField("plain", np.int32, (), None, False),
    UnischemaField("grey", np.uint8, (5, 7), CompressedImageCodec("png"), True),
    UnischemaField("deep", np.uint16, (None, None, 3), CompressedImageCodec("png"), False),
    UnischemaField("photo", np.uint8, (None, None, 3), CompressedImageCodec("jpeg", 70), False),
    array("fixed", np.float32, (2, 3)),
    array("half", np.float16, (4,), nullable=True),
    array("bools", np.bool_, (None,)),
    array("fortran", np.int16, (3, 2, 2)),
    array("big", np.int32, (None, 2)),
    array("ulong", np.uint64, (2,), CompressedNdarrayCodec),
    array("complex", np.complex64, (2,)),
    array("wide", np.complex128, (None, 1), CompressedNdarrayCodec),
    array("point", np.float64, ()),
    array("empty", np.float32, (None, 4)),
    array("names", np.str_, (None,), nullable=True),
    array("codes", np.bytes_, (2, 2)),
    array("stamps", np.datetime64, (None,)),
    array("days", np.datetime64, (2,), CompressedNdarrayCodec, True),
    UnischemaField("part", np.str_, (), ScalarCodec(T.StringType()), False),
]


def row(i):
    rng = np.random.default_rng(i)
    some = lambda value: None if i % 7 == 3 else value
    return {
        "id": i,
        "i8": i % 256 - 128,
        "u8": 255 - i,
        "u32": some(2**32 - 1 - i),
        "f16": i / 8,
        "f32": 10.0 ** (i - 30) / 7,
        "f64": i / 3,
        "flag": some(i % 2 == 0),
        "text": some(f"row {i} é漢"),
        "price": some(decimal.Decimal(i) / 8),
        "day": some(dt.date(1969, 12, 25) + dt.timedelta(days=i)),
        "at": dt.datetime(1999, 12, 31, 23, 59, 59, 123456) + dt.timedelta(hours=i),
        "plain": np.int32(-i),
        "grey": some(rng.integers(0, 256, (5, 7), dtype=np.uint8)),
        "deep": rng.integers(0, 65536, (1 + i % 3, 4, 3), dtype=np.uint16),
        "photo": rng.integers(0, 256, (8 + i % 9, 17, 3), dtype=np.uint8),
        "fixed": rng.random((2, 3), dtype=np.float32),
        "half": some(rng.random(4).astype(np.float16)),
        "bools": rng.random(i % 5) < 0.5,
        "fortran": np.asfortranarray(rng.integers(-300, 300, (3, 2, 2)).astype(np.int16)),
        "big": rng.integers(-(2**31), 2**31, (i % 4, 2)).astype(">i4"),
        "ulong": np.array([i, 2**64 - 1 - i], dtype=np.uint64),
        "complex": (rng.random(2) - 1j * rng.random(2)).astype(np.complex64),
        "wide": (rng.random((i % 3, 1)) * 1j).astype(np.complex128),
        "point": np.array(i * 0.5),
        "empty": np.zeros((0, 4), dtype=np.float32),
        "names": some(np.array(["a" * (i % 4), "é漢", ""][: i % 4], dtype=np.str_)),
        "codes": np.array([[b"ab", b""], [b"x" * (1 + i % 3), b"c"]]),
        "stamps": np.array([f"2020-01-0{1 + i % 9}T00:00:00.00000{i % 10}", "NaT"], dtype="M8[us]"),
        "days": some(np.array([i, -i], dtype="M8[D]")),
        "part": f"p_{i % 2}",
    }


def main(dataset, *options):
    schema = Unischema("Everything", FIELDS)
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", False)
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", 2)
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    url = f"file://{dataset}"
    with materialize_dataset(spark, url, schema, use_summary_metadata="--summary" in options):
        rows = [dict_to_spark_row(schema, row(i)) for i in range(ROWS)]
        frame = spark.createDataFrame(rows, schema.as_spark_schema())
        frame = frame.repartition(8, "id") if "--many-files" in options else frame.coalesce(2)
        writer = frame.write.partitionBy("part").option("parquet.block.size", 4096)
        writer.option("parquet.page.size", 512).mode("overwrite").parquet(url)
    if "--summary" not in options:
        indexers = [
            SingleFieldIndexer("by_id", "id"),
            SingleFieldIndexer("by_text", "text"),
            SingleFieldIndexer("by_name", "names"),
            FieldNotNullIndexer("has_text", "text"),
        ]
        build_rowgroup_index(url, spark.sparkContext, indexers)
    spark.stop()


main(*sys.argv[1:])

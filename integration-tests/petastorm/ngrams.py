"""Writes a dataset and reads its n-grams with real Petastorm, for the test in tests/with_petastorm/ngrams.rs.

    python3 ngrams.py DATASET FOUND

FOUND: JSON lines, one for each n-gram that is read: its `fields` for each offset, `timestamp`, `threshold`, a number or one
of microseconds, `overlap`, the names of a `predicate` and of a `transform` that the test knows too, and the `windows`: for each
offset the digest of each field, or the name of the `error` and what it says.
"""

import datetime as dt
import decimal
import glob
import itertools
import json
import os
import sys
import warnings

warnings.simplefilter("ignore")
# Spark's workers need Petastorm too.
os.environ["PYSPARK_PYTHON"] = sys.executable

import numpy as np
import pyarrow.parquet as pq
from petastorm import make_reader
from petastorm.codecs import NdarrayCodec, ScalarCodec
from petastorm.etl.dataset_metadata import materialize_dataset
from petastorm.ngram import NGram
from petastorm.predicates import in_lambda
from petastorm.transform import TransformSpec
from petastorm.unischema import Unischema, UnischemaField, dict_to_spark_row
from pyspark.sql import SparkSession, types as T

import digest


def scalar(name, dtype, spark, nullable=False):
    return UnischemaField(name, dtype, (), ScalarCodec(spark), nullable)


# Ticks between rows: gaps, and rows of the same time. The sizes of the files: one row, fewer rows than a window has, many.
STEPS = [1, 1, 2, 0, 1, 5, 1, 0, 0, 3, 1, 1, 9, 2, 2, 1]
FILES = [1, 2, 3, 4, 7, 40, 23]

SCHEMA = Unischema(
    "Drive",
    [
        scalar("id", np.int64, T.LongType()),
        scalar("t", np.int64, T.LongType()),
        scalar("t32", np.int32, T.IntegerType()),
        scalar("half", np.float16, T.FloatType()),
        scalar("single", np.float32, T.FloatType()),
        scalar("seconds", np.float64, T.DoubleType()),
        scalar("price", decimal.Decimal, T.DecimalType(12, 1)),
        scalar("at", np.datetime64, T.TimestampType()),
        scalar("day", np.datetime64, T.DateType()),
        scalar("unsorted", np.int64, T.LongType()),
        scalar("late", np.int64, T.LongType(), True),
        scalar("speed", np.float32, T.FloatType()),
        scalar("gear", np.int8, T.ByteType(), True),
        scalar("label", np.str_, T.StringType(), True),
        UnischemaField("image", np.int16, (3, 40), NdarrayCodec(), False),
        UnischemaField("points", np.float32, (None, 2), NdarrayCodec(), True),
    ],
)


def row(i, t):
    rng = np.random.default_rng(i)
    return {
        "id": i,
        "t": t,
        "t32": t,
        "half": np.float16(t / 8),
        "single": np.float32(t / 10),
        "seconds": t / 10,
        "price": decimal.Decimal(t) / 10,
        "at": dt.datetime(2020, 2, 28, 23, 59, 58) + dt.timedelta(milliseconds=t),
        "day": dt.date(2020, 2, 28) + dt.timedelta(days=t),
        "unsorted": i * 7 % 10,
        "late": None if i % 11 == 5 else t,
        "speed": i / 3,
        "gear": None if i % 5 == 2 else i % 6,
        "label": None if i % 4 == 1 else f"row {i}",
        "image": rng.integers(-999, 999, (3, 40)).astype(np.int16),
        "points": None if i % 6 == 3 else rng.random((i % 4, 2), dtype=np.float32),
    }


def write(dataset):
    times = list(itertools.accumulate(STEPS * 5))
    ids = itertools.count()
    files = [[row(i, times[i]) for i in itertools.islice(ids, n)] for n in FILES]
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", False)
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    url = f"file://{dataset}"
    with materialize_dataset(spark, url, SCHEMA):
        encoded = [[dict_to_spark_row(SCHEMA, row) for row in file] for file in files]
        rows = spark.sparkContext.parallelize(encoded, len(encoded)).flatMap(list)
        writer = spark.createDataFrame(rows, SCHEMA.as_spark_schema()).write.mode("overwrite")
        for check in ["parquet.page.size.row.check.min", "parquet.block.size.row.check.min"]:
            writer = writer.option(check, 5)
        writer.option("parquet.block.size", 7000).option("parquet.page.size", 256).parquet(url)
    spark.stop()
    row_groups = [pq.ParquetFile(path).num_row_groups for path in glob.glob(f"{dataset}/*.parquet")]
    assert len(row_groups) == len(FILES) and max(row_groups) > 1, row_groups


PREDICATES = {
    "even": in_lambda(["id"], lambda id: id % 2 == 0),
    "third": in_lambda(["id", "t"], lambda id, t: id % 3 > 0 and t > 4),
    "none": in_lambda(["id"], lambda id: id < 0),
}


def faster(row):
    row["speed"] = np.float64(row["id"]) / 4
    row["image"] = row["image"] + np.int16(1)
    return row


def added(row):
    row["sum"] = row["id"] + row["t"]
    return row


def shifted(row):
    row["t"] = row["t"] * 100
    return row


TRANSFORMS = {
    "faster": TransformSpec(faster, edit_fields=[("speed", np.float64, (), False)]),
    # No n-gram can name what is not stored.
    "added": TransformSpec(added, edit_fields=[("sum", np.int64, (), False)]),
    # Petastorm's windows are made of what it leaves.
    "shifted": TransformSpec(shifted),
    "removed": TransformSpec(removed_fields=["label"]),
}


def main(dataset, path):
    write(dataset)
    with open(path, "w") as out:
        for fields, timestamp, threshold, overlap, predicate, transform in asked():
            most = threshold
            if isinstance(threshold, dict):
                most = np.timedelta64(threshold["microseconds"], "us")
            answer = {
                "fields": fields,
                "timestamp": timestamp,
                "threshold": threshold,
                "overlap": overlap,
                "predicate": predicate,
                "transform": transform,
            }
            try:
                ngram = NGram(fields, most, timestamp, overlap)
                # One thread: its pools of threads lose row groups.
                with make_reader(
                    f"file://{dataset}",
                    schema_fields=ngram,
                    reader_pool_type="dummy",
                    shuffle_row_groups=False,
                    predicate=PREDICATES.get(predicate),
                    transform_spec=TRANSFORMS.get(transform),
                ) as reader:
                    answer["windows"] = [
                        {
                            str(offset): {name: digest.digest(value) for name, value in row._asdict().items()}
                            for offset, row in window.items()
                        }
                        for window in reader
                    ]
            except Exception as error:
                answer["error"] = f"{type(error).__name__}: {error}"
            print(json.dumps(answer), file=out)


def asked():
    """Fields, timestamp, threshold, overlap, predicate, transform."""
    thresholds = {"t": [0, 1, 1.5, 2, 5, 100]}
    for length, overlap in itertools.product(range(1, 6), (True, False)):
        for threshold in thresholds["t"]:
            for predicate in (None, "even", "third"):
                yield {i: ["id", "t"] for i in range(length)}, "t", threshold, overlap, predicate, None
        for timestamp, threshold in [
            ("t32", 2),
            ("half", 0.25),
            ("half", 0.1),
            ("single", 0.1),
            ("single", 0.2),
            ("seconds", 0.1),
            ("seconds", 0.2),
            ("seconds", 1e9),
            ("price", 1),
            ("price", 0.1),
            ("price", 0.2),
            ("at", {"microseconds": 2000}),
            ("at", {"microseconds": 1999}),
            ("at", 2000),
            ("day", {"microseconds": 86_400_000_000}),
            ("day", 1),
            ("late", 5),
            ("unsorted", 9),
        ]:
            yield {i: ["id", timestamp] for i in range(length)}, timestamp, threshold, overlap, None, None
    clip = {-2: ["id", "t", "im.*"], 0: ["id", "speed", "gear", "label", "points"], 1: [".*s", "t"]}
    for overlap, predicate, transform in itertools.product((True, False), (None, "even"), (None, "faster")):
        yield clip, "t", 5, overlap, predicate, transform
    yield {0: ["id", "t"], 3: ["image", "id"]}, "t", 5, True, None, "faster"
    yield {3: ["id"], 1: ["id", "t"]}, "t", 5, True, None, None
    yield {-5: ["points", "t"], -4: ["points"]}, "t", 2, False, None, None
    yield {0: ["id", "t"], 1: []}, "t", 2, True, None, None
    yield {0: ["id", "t"], 1: ["id"]}, "^t$", 2, True, None, None
    yield {0: ["id", "t"], 1: ["id"]}, "t.*", 2, True, None, None
    yield {0: ["id", "t"], 1: ["id"]}, "t", 2, True, "none", None
    yield {0: ["id", "t"], 1: ["id"]}, "t", -1, True, None, None
    yield {0: ["id", "t"], 1: ["id"]}, "t", 2, True, None, "shifted"
    yield {0: ["id", "t", "sum"], 1: ["sum", "id"]}, "t", 2, True, None, "added"
    yield {0: ["id", "t", "label"], 1: ["id"]}, "t", 2, True, None, "removed"
    yield {0: ["id"], 1: ["id"]}, "t", 2, True, None, None
    yield {0: ["t"], 1: ["t"]}, "t", 2, True, "even", None
    yield {0: ["t", "nope"], 1: ["t"]}, "t", 2, True, None, None
    yield {0: ["t"], 1: ["t"]}, "nope", 2, True, None, None
    yield {0: ["t", "points"], 1: ["t"]}, "points", 2, True, None, None
    yield {0: ["t", "label"], 1: ["t"]}, "label", 2, True, None, None
    yield {}, "t", 2, True, None, None


main(*sys.argv[1:])
# All is written. Threads that Petastorm has left behind may abort the interpreter while it ends.
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)

"""Reads a dataset with real Petastorm, and with Spark, for the tests in tests/with_petastorm.rs.

    python3 read.py DATASET PETASTORM INDEXES [SPARK]

PETASTORM: what make_reader yields, a JSON line a row. INDEXES: the row-group indexes, a JSON object of lists of pairs of
a value's text, null for a FieldNotNullIndexer, and the ordinals of its row groups. SPARK: what spark.read.parquet yields, scalars only.
"""

import datetime as dt
import decimal
import json
import sys
import warnings

warnings.simplefilter("ignore")

import pyarrow.parquet as pq
from petastorm import make_reader
from petastorm.etl.rowgroup_indexing import get_row_group_indexes

import digest


def plain(value):
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="microseconds")
    return str(value) if isinstance(value, (dt.date, decimal.Decimal)) else value


def main(dataset, rows_path, indexes_path, spark_path=None):
    # One thread: its pools of threads lose row groups.
    with make_reader(f"file://{dataset}", reader_pool_type="dummy") as reader:
        digest.write([row._asdict() for row in reader], rows_path)

    try:
        indexes = get_row_group_indexes(pq.ParquetDataset(dataset, use_legacy_dataset=True, validate_schema=False))
    except ValueError:
        # It has none.
        indexes = {}
    found = {}
    for name, index in indexes.items():
        if type(index).__name__ == "FieldNotNullIndexer":
            found[name] = [[None, sorted(index.get_row_group_indexes())]]
        else:
            pairs = ([str(value), sorted(index.get_row_group_indexes(value))] for value in index.indexed_values)
            found[name] = sorted(pairs)
    with open(indexes_path, "w") as out:
        json.dump(found, out)

    if spark_path:
        from pyspark.sql import SparkSession

        spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", False)
        spark = spark.config("spark.sql.session.timeZone", "UTC").getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")
        rows = spark.read.parquet(dataset)
        # Cells are binary, and Petastorm's to decode.
        scalars = [name for name, kind in rows.dtypes if kind != "binary"]
        with open(spark_path, "w") as out:
            for row in sorted(rows.select(scalars).collect(), key=lambda row: row["id"]):
                print(json.dumps({name: plain(value) for name, value in row.asDict().items()}), file=out)
        spark.stop()


main(*sys.argv[1:])

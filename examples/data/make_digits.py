"""Writes examples/data/digits: the UCI handwritten digits as a table, by real Spark.

The 1,797 images of 8x8 pixels (values 0 to 16) come with scikit-learn, whose package carries a copy of the
"Optical Recognition of Handwritten Digits" test set (E. Alpaydin, C. Kaynak, 1998, UCI Machine Learning
Repository, CC BY 4.0).

    python3 -m venv venv && venv/bin/pip install pyspark==4.0.1 scikit-learn
    venv/bin/python examples/data/make_digits.py examples/data/digits

Columns: id int, pixels array<tinyint> (64, row by row), digit tinyint. Spark needs Java 17 or later.
"""

import sys

from pyspark.sql import SparkSession, types as T
from sklearn.datasets import load_digits


def main(destination: str) -> None:
    spark = (
        SparkSession.builder.master("local[2]")
        .appName("digits")
        .config("spark.ui.enabled", "false")
        # Several row groups a file, so that there is something to partition and to shuffle.
        .config("spark.hadoop.parquet.block.size", str(12 * 1024))
        .config("spark.hadoop.parquet.page.size", str(4 * 1024))
        .config("spark.hadoop.parquet.block.size.row.check.min", "20")
        .config("spark.hadoop.parquet.block.size.row.check.max", "20")
        .config("spark.hadoop.parquet.page.size.row.check.min", "20")
        .getOrCreate()
    )
    digits = load_digits()
    schema = T.StructType(
        [
            T.StructField("id", T.IntegerType(), False),
            T.StructField("pixels", T.ArrayType(T.ByteType(), False), False),
            T.StructField("digit", T.ByteType(), False),
        ]
    )
    rows = [
        (i, [int(p) for p in pixels], int(digit))
        for i, (pixels, digit) in enumerate(zip(digits.data, digits.target))
    ]
    table = spark.createDataFrame(rows, schema)
    table.repartitionByRange(4, "id").write.mode("overwrite").parquet(destination)
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1])

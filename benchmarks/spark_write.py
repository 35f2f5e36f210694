"""Writes rows that SQL computes as Parquet, as Spark does it: python3 spark_write.py DESTINATION ROWS COLUMNS."""

import argparse

from pyspark.sql import SparkSession
from pyspark.sql.functions import xxhash64

parser = argparse.ArgumentParser()
parser.add_argument("destination")
parser.add_argument("rows", type=int)
parser.add_argument("columns")
parser.add_argument("--memory", default="4g")
parser.add_argument("--shuffle", action="store_true", help="put all rows in the order of a hash")
options = parser.parse_args()

spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.driver.memory", options.memory)
    .config("spark.ui.enabled", "false")
    .config("spark.sql.parquet.compression.codec", "zstd")
    .config("spark.hadoop.parquet.block.size", str(32 << 20))
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")
rows = spark.range(0, options.rows, numPartitions=8).selectExpr(*options.columns.split(", "))
if options.shuffle:
    rows = rows.orderBy(xxhash64("id"))
rows.write.parquet(options.destination)
spark.stop()

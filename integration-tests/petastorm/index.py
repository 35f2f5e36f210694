"""Adds a row-group index to a dataset with real Petastorm, for the tests in tests/with_petastorm.rs.

    python3 index.py DATASET NAME COLUMN
"""

import os
import sys
import warnings

warnings.simplefilter("ignore")
# Spark's workers need Petastorm too.
os.environ["PYSPARK_PYTHON"] = sys.executable

from petastorm.etl.rowgroup_indexers import SingleFieldIndexer
from petastorm.etl.rowgroup_indexing import build_rowgroup_index
from pyspark.sql import SparkSession

dataset, name, column = sys.argv[1:]
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", False).getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
build_rowgroup_index(f"file://{dataset}", spark.sparkContext, [SingleFieldIndexer(name, column)])
spark.stop()

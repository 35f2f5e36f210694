"""Reads a dataset of Squall's with real Spark, for the tests in tests/with_spark.rs.

    python3 read.py DATASET OUT

OUT: a JSON line a row, sorted by id, in the form of write.py.
"""

import os
import sys
import time

from write import dump, session

if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    time.tzset()
    dataset, out = sys.argv[1:]
    dump(session().read.parquet(dataset), out)

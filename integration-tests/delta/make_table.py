"""Writes the fixture delta-1.6.6: pip install deltalake==1.6.6 pyarrow; python3 make_table.py DIRECTORY.

Version 0 has the rows 0 to 39 in directories by country, version 1 those to 59, version 2 lacks those below 10, version 3 has
the same rows in fewer files.
"""

import sys

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake


def rows(first, end):
    ids = range(first, end)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "name": [None if i % 7 == 0 else f"row {i}" for i in ids],
            "country": ["CH" if i % 2 else "DE" for i in ids],
            "x": pa.array([i * 0.5 for i in ids], pa.float32()),
        }
    )


path = sys.argv[1]
write_deltalake(path, rows(0, 40), partition_by=["country"])
write_deltalake(path, rows(40, 60), mode="append")
DeltaTable(path).delete("id < 10")
DeltaTable(path).optimize.compact()

"""Counts what real Petastorm loses and mixes up, for the test in tests/with_petastorm/losses.rs.

    python3 lose.py DIRECTORY EPOCHS

Writes two datasets with columns id, from 0, and name, "row 5" in row 5 but null for multiples of 7: DIRECTORY/tiny, 10 row
groups of 2 rows, and DIRECTORY/larger, 8 row groups of 15 rows. Reads tiny EPOCHS times with each of several numbers of
threads, larger with a predicate and shuffle_rows. DIRECTORY/found.json, an object, says for each number of threads how many
epochs lacked rows and how many rows lacked at most; and of each epoch of larger how many rows came with the name of another
one, and how many came.
"""

import json
import os
import sys
import warnings

warnings.simplefilter("ignore")

import pyarrow as pa
import pyarrow.parquet as pq
from petastorm import make_batch_reader
from petastorm.predicates import in_lambda


def write(dataset, n, row_group):
    os.mkdir(dataset)
    names = [f"row {id}" if id % 7 else None for id in range(n)]
    table = pa.table({"id": pa.array(range(n), pa.int32()), "name": names})
    pq.write_table(table, f"{dataset}/part-0.parquet", row_group_size=row_group)


def rows(dataset, **options):
    with make_batch_reader(f"file://{dataset}", **options) as reader:
        return [pair for batch in reader for pair in zip(batch.id.tolist(), batch.name.tolist())]


def mixed(pairs):
    # A null is the text None.
    return sum(name != (f"row {id}" if id % 7 else "None") for id, name in pairs)


def main(directory, epochs):
    tiny, larger = f"{directory}/tiny", f"{directory}/larger"
    write(tiny, 20, 2)
    write(larger, 120, 15)
    lost = {}
    for workers in (1, 2, 3, 10):
        lacking = [20 - len(rows(tiny, workers_count=workers, seed=seed)) for seed in range(int(epochs))]
        lost[workers] = {"epochs": sum(n > 0 for n in lacking), "most_rows": max(lacking)}
    odd = in_lambda(["id"], lambda id: id % 2 == 1)
    # In the caller's thread no row is lost, so that what is mixed up has no other cause.
    options = {"reader_pool_type": "dummy", "predicate": odd, "shuffle_rows": True}
    pairs = [rows(larger, seed=seed, **options) for seed in range(10)]
    with open(f"{directory}/found.json", "w") as out:
        json.dump({"lost": lost, "mixed": [[mixed(epoch), len(epoch)] for epoch in pairs]}, out)


main(*sys.argv[1:])
# All is written. Threads that Petastorm has left behind may abort the interpreter while it ends.
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)

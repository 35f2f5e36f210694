"""Which rows real Petastorm reads, for the tests in tests/with_petastorm.rs.

    python3 rows.py DATASET ROWS

DATASET is one of write.py --many-files. ROWS: a JSON object, for each name of predicate, selector and shard that the test knows too, the sorted
ids of the rows; or the name of the error.
"""

import decimal
import json
import os
import sys
import warnings

warnings.simplefilter("ignore")

import numpy as np
from petastorm import make_reader
from petastorm.errors import NoDataAvailableError
from petastorm.predicates import (
    in_intersection,
    in_lambda,
    in_negate,
    in_pseudorandom_split,
    in_reduce,
    in_set,
)
from petastorm.selectors import IntersectIndexSelector, SingleIndexSelector, UnionIndexSelector

SPLIT = ["id", "i8", "u8", "u32", "f16", "f32", "f64", "flag", "text", "price", "day", "at", "plain", "part"]
FIELDS = SPLIT + ["fortran", "codes", "bools"]

even = in_lambda(["id"], lambda id: id % 2 == 0)
third = in_lambda(["id"], lambda id: id % 3 == 0)
dated = in_lambda(["u32", "f64"], lambda u32, f64: u32 is not None and f64 > 5)

PREDICATES = {
    "set int": in_set([3, 5, 59.0, 3.5], "id"),
    "set text": in_set(["row 1 é漢", "row 8 é漢", "row 3 é漢"], "text"),
    "set none": in_set([None, "row 2 é漢"], "text"),
    "set decimal": in_set([decimal.Decimal("0.125"), 2, 1.5, 0.1], "price"),
    "set float": in_set([1 / 3, 2, 0.1], "f64"),
    "set half": in_set([0.125, 3, 0.1], "f16"),
    "set flag": in_set([True], "flag"),
    "set day": in_set([np.datetime64("1970-01-01"), np.datetime64("1969-12-25")], "day"),
    "set partition": in_set(["p_1", "p_7"], "part"),
    "intersection int": in_intersection([7, 8.0, -250, 100], "fortran"),
    "intersection bytes": in_intersection([b"xx", b"z"], "codes"),
    "intersection bool": in_intersection([True], "bools"),
    "lambda": dated,
    "negate": in_negate(even),
    "negate set": in_negate(in_set([None], "text")),
    "reduce all": in_reduce([even, third], all),
    "reduce any": in_reduce([even, in_negate(third)], any),
    "reduce custom": in_reduce([even, third, in_set(["p_1"], "part")], lambda answers: sum(answers) == 1),
    "reduce partition": in_reduce([third, in_set(["p_0"], "part")], all),
}
for field in SPLIT:
    for subset in range(3):
        PREDICATES[f"split {field} {subset}"] = in_pseudorandom_split([0.5, 0.3, 0.2], subset, field)

by_id = SingleIndexSelector("by_id", [3, 40, 1000])
by_name = SingleIndexSelector("by_name", ["a"])
SELECTORS = {
    "select single": by_id,
    "select text": SingleIndexSelector("by_text", ["row 12 é漢"]),
    "select not null": SingleIndexSelector("has_text", [None]),
    "select intersect": IntersectIndexSelector([by_id, by_name]),
    "select union": UnionIndexSelector([by_id, SingleIndexSelector("by_id", [17, 18])]),
    "select nothing": SingleIndexSelector("by_id", [-1]),
    "select unknown": SingleIndexSelector("nope", [1]),
}


def main(dataset, path):
    def ids(**options):
        options = {"reader_pool_type": "dummy", "schema_fields": FIELDS, **options}
        try:
            with make_reader(f"file://{dataset}", **options) as reader:
                return sorted(int(row.id) for row in reader)
        except (NoDataAvailableError, ValueError) as error:
            return type(error).__name__

    found = {name: ids(predicate=predicate) for name, predicate in PREDICATES.items()}
    found.update((name, ids(rowgroup_selector=selector)) for name, selector in SELECTORS.items())
    for count in [1, 2, 3, 7, 12, 100]:
        for rank in range(min(count, 12)):
            shard = {"cur_shard": rank, "shard_count": count}
            found[f"shard {rank} {count}"] = ids(**shard)
            found[f"seeded {rank} {count}"] = ids(**shard, seed=7)
            found[f"select shard {rank} {count}"] = ids(**shard, rowgroup_selector=SELECTORS["select union"])
            found[f"partition shard {rank} {count}"] = ids(**shard, predicate=PREDICATES["set partition"])
            found[f"predicate shard {rank} {count}"] = ids(**shard, predicate=even)
    with open(path, "w") as out:
        json.dump(found, out)


main(*sys.argv[1:])
# All is written. Threads that Petastorm has left behind may abort the interpreter while it ends.
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)

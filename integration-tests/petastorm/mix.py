"""Mixes two datasets with real Petastorm's WeightedSamplingReader, for the test in tests/with_petastorm/mixtures.rs.

    python3 mix.py DIRECTORY RUNS

Writes DIRECTORY/a, ids 0 to 2,999, and DIRECTORY/b, ids 100,000 to 100,999; long_a and long_b are four times as long.
DIRECTORY/found.json, an object: `blocks`, for each
pair of weights how many of each 1,000 samples were of a; `ends`, for each pair of weights and each of RUNS runs how many
samples of a and of b came, and which of them was drawn when it had no more.
"""

import json
import os
import sys
import warnings

warnings.simplefilter("ignore")

import numpy as np

# Gone since numpy 1.24; WeightedSamplingReader needs it.
np.float = float

import pyarrow as pa
import pyarrow.parquet as pq
from petastorm import make_batch_reader
from petastorm.weighted_sampling_reader import WeightedSamplingReader

LARGE = 100_000
WEIGHTS = [(0.7, 0.3), (0.5, 0.5), (0.9, 0.1)]


class Rows:
    """The rows of a reader of batches, one by one: what make_reader is to a dataset without a Unischema."""

    batched_output, ngram, last_row_consumed = False, None, False

    def __init__(self, url):
        self.reader = make_batch_reader(url, reader_pool_type="dummy", shuffle_row_groups=False)
        self.schema = self.reader.schema
        self.ids = (id for batch in self.reader for id in batch.id.tolist())
        self.ended = False

    def __next__(self):
        try:
            return next(self.ids)
        except StopIteration:
            self.ended = True
            raise

    def stop(self):
        self.reader.stop()

    def join(self):
        self.reader.join()


def main(directory, runs):
    ranges = {"a": range(3000), "b": range(LARGE, LARGE + 1000), "long_a": range(12000), "long_b": range(LARGE, LARGE + 4000)}
    for name, ids in ranges.items():
        os.mkdir(f"{directory}/{name}")
        table = pa.table({"id": pa.array(ids, pa.int32())})
        pq.write_table(table, f"{directory}/{name}/part-0.parquet", row_group_size=250)
    blocks, ends = [], []
    for weights in WEIGHTS:
        ends.append([])
        for run in range(int(runs)):
            np.random.seed(run)
            rows = [Rows(f"file://{directory}/{name}") for name in "ab"]
            with WeightedSamplingReader(rows, weights) as mixed:
                ids = list(mixed)
            assert len(ids) == len(set(ids))
            of_a = [id < LARGE for id in ids]
            drawn_last = [own.ended for own in rows]
            assert sum(drawn_last) == 1
            ends[-1].append([sum(of_a), len(ids) - sum(of_a), drawn_last.index(True)])
            if run == 0:
                blocks.append([sum(of_a[at : at + 1000]) for at in range(0, len(ids) - 999, 1000)])
    with open(f"{directory}/found.json", "w") as out:
        json.dump({"weights": WEIGHTS, "blocks": blocks, "ends": ends}, out)


main(*sys.argv[1:])
# All is written. Threads that Petastorm has left behind may abort the interpreter while it ends.
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)

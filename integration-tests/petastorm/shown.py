"""What Petastorm's own tool prints of a dataset's row-group indexes, for the tests in tests/with_petastorm/tools.rs.

    python3 shown.py DATASET TEXT
"""

import contextlib
import runpy
import sys
import warnings

warnings.simplefilter("ignore")

dataset, path = sys.argv[1:]
with open(path, "w", encoding="utf-8") as out, contextlib.redirect_stdout(out):
    sys.argv = ["metadata_util", "--dataset-url", f"file://{dataset}"]
    runpy.run_module("petastorm.etl.metadata_util", run_name="__main__")

"""Measures the peers on a benchmark set, for the benchmark `engine`: prints one line of JSON.

    peers.py petastorm SET FOLDER --pool thread|process [--workers 2] [--batch 1024] [--shuffle ROWS] [--seconds 8]
    peers.py dali FOLDER [--threads 2] [--batch 64] [--seconds 8]

The line has rows, seconds and cpu_seconds (where all work is in one process), counted from the first batch on, and first_batch: the seconds from the call that makes the
reader to the first batch, without imports. Or it has an error.

petastorm runs in the Python SQUALL_PETASTORM_PYTHON of `cargo xtask env`, and takes torch from VIRTUAL_ENV of the same. dali
runs in an environment of its own, which is made in the cache folder.
"""

import argparse
import glob
import json
import os
import subprocess
import sys
import time
import warnings

DALI = ["nvidia-dali-cuda120==2.4.0", "numpy", "pyarrow"]


def main():
    parser = argparse.ArgumentParser()
    peers = parser.add_subparsers(dest="peer", required=True)
    petastorm = peers.add_parser("petastorm")
    petastorm.add_argument("set", choices=["tabular", "png", "jpeg", "npy"])
    petastorm.add_argument("--pool", choices=["thread", "process"], required=True)
    petastorm.add_argument("--shuffle", type=int, default=0, help="rows of the shuffling queue; 0 for none")
    dali = peers.add_parser("dali")
    for peer in (petastorm, dali):
        peer.add_argument("folder")
        peer.add_argument("--workers", type=int, default=2)
        peer.add_argument("--batch", type=int, default=64)
        peer.add_argument("--seconds", type=float, default=8)
    options = parser.parse_args()
    # Standard output is for the line.
    out = os.dup(1)
    os.dup2(2, 1)
    if options.peer == "dali" and not os.environ.get("SQUALL_DALI"):
        python = dali_python()
        os.dup2(out, 1)
        os.execve(python, [python, *sys.argv], dict(os.environ, SQUALL_DALI="1"))
    try:
        result = run_petastorm(options) if options.peer == "petastorm" else run_dali(options)
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(out, "w") as line:
        print(json.dumps(result), file=line)
    # The threads of both are known to crash an orderly end.
    os._exit(0)


def measure(make, rows_of, seconds):
    """Batches of make() until they end, or the time is up. The first one is where the clock of the rate starts."""
    made = time.perf_counter()
    batches = iter(make())
    next(batches)
    began = end = time.perf_counter()
    cpu = time.process_time()
    rows = 0
    for batch in batches:
        rows += rows_of(batch)
        end = time.perf_counter()
        if end - began > seconds:
            break
    cpu = time.process_time() - cpu
    return {"rows": rows, "seconds": end - began, "cpu_seconds": cpu, "first_batch": began - made}


def run_petastorm(options):
    warnings.simplefilter("ignore")
    try:
        import torch
    except ImportError:
        # Behind Petastorm's own packages: its numpy is an older one.
        sys.path += glob.glob(os.path.join(os.environ["VIRTUAL_ENV"], "lib", "python3*", "site-packages"))
        import torch
    import numpy as np
    from petastorm import TransformSpec, make_batch_reader, make_reader
    from petastorm.pytorch import BatchedDataLoader, DataLoader

    torch.set_num_threads(1)
    url = "file://" + options.folder
    settings = {"reader_pool_type": options.pool, "workers_count": options.workers, "num_epochs": 1}
    settings.update(shuffle_row_groups=True, seed=1)

    def make():
        if options.set == "tabular":
            reader = make_batch_reader(url, **settings)
            return BatchedDataLoader(reader, batch_size=options.batch, shuffling_queue_capacity=options.shuffle)
        if options.set == "png":
            settings["transform_spec"] = TransformSpec(scaled, edit_fields=[("x", np.float32, (28, 28), False)])
        return DataLoader(make_reader(url, **settings), options.batch, shuffling_queue_capacity=options.shuffle)

    result = measure(make, lambda batch: len(batch["id"]), options.seconds)
    if options.pool == "process":
        del result["cpu_seconds"]
    return result


def scaled(row):
    row["x"] = row["x"].astype("float32") / 255
    return row


def run_dali(options):
    import numpy as np
    import pyarrow.parquet as parquet
    from nvidia.dali import fn, pipeline_def, types

    # DALI is given the cells in memory: reading Parquet is not held against it.
    cells = []
    for path in sorted(glob.glob(os.path.join(options.folder, "*.parquet"))):
        column = parquet.read_table(path, columns=["x"])["x"]
        cells += [np.frombuffer(cell.as_py(), np.uint8) for cell in column]
    batches = [cells[i : i + options.batch] for i in range(0, len(cells) - options.batch + 1, options.batch)]

    @pipeline_def(batch_size=options.batch, num_threads=options.workers, device_id=None, prefetch_queue_depth=4)
    def images():
        jpegs = fn.external_source(source=batches, cycle="raise", dtype=types.UINT8)
        return fn.decoders.image(jpegs, device="cpu")

    def make():
        pipeline = images()
        pipeline.build()
        while True:
            try:
                yield pipeline.run()
            except StopIteration:
                return

    return measure(make, lambda batch: len(batch[0]), options.seconds)


def dali_python():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(cache, "squall", "venv-" + DALI[0].replace("==", "-"))
    python, done = os.path.join(folder, "bin", "python3"), os.path.join(folder, "squall-packages.txt")
    wanted = "\n".join(DALI)
    if not os.path.exists(done) or open(done).read() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *DALI], check=True)
        with open(done, "w") as file:
            file.write(wanted)
    return python


if __name__ == "__main__":
    main()

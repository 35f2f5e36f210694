"""Makes the benchmark sets, once, in $XDG_CACHE_HOME/squall/benchmark-sets (or ~/.cache), and prints where they are.

    python3 benchmarks/sets.py [tabular png jpeg npy]

`cargo xtask env` tells the Pythons: SQUALL_PYSPARK_PYTHON writes the table with plain Spark, SQUALL_PETASTORM_PYTHON the other
three with Petastorm's materialize_dataset. What a set holds depends on its seed and on nothing else; a set whose
description has changed is made anew.
"""

import json
import os
import shutil
import subprocess
import sys

# Bytes of a row group and the number of files are such that a set has some 40 row groups: less than that is no test of a
# shuffle over many of them.
SETS = {
    "tabular": {"rows": 4_000_000, "features": 20, "files": 8, "row_group_bytes": 2_400_000, "seed": 1, "version": 2},
    "png": {"rows": 200_000, "shape": [28, 28], "files": 4, "row_group_mb": 2, "seed": 2, "version": 1},
    "jpeg": {"rows": 15_000, "shape": [256, 256, 3], "quality": 85, "files": 4, "row_group_mb": 8, "seed": 3, "version": 1},
    "npy": {"rows": 60_000, "shape": [64, 64], "files": 4, "row_group_mb": 16, "seed": 4, "version": 1},
}
DESCRIPTION = "squall-set.json"


def cache_folder():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "squall", "benchmark-sets")


def main():
    for name in sys.argv[1:] or SETS:
        print(make(name))


def make(name):
    """The folder of a set, which is made if it is not there as it is described."""
    folder = os.path.join(cache_folder(), name)
    described = os.path.join(cache_folder(), name + "." + DESCRIPTION)
    try:
        with open(described) as file:
            if json.load(file) == SETS[name]:
                return folder
    except FileNotFoundError:
        pass
    variable = "SQUALL_PYSPARK_PYTHON" if name == "tabular" else "SQUALL_PETASTORM_PYTHON"
    python = os.environ.get(variable)
    if not python:
        sys.exit(f'sets.py: {variable} is not set: eval "$(cargo xtask env)" sets it')
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(cache_folder(), exist_ok=True)
    print(f"sets.py: making {name} in {folder}", file=sys.stderr)
    environment = dict(os.environ, PYSPARK_PYTHON=python, PYSPARK_DRIVER_PYTHON=python, PYTHONWARNINGS="ignore")
    # Standard output is for the folders.
    subprocess.run([python, __file__, "--write", name, folder], check=True, env=environment, stdout=sys.stderr)
    with open(described, "w") as file:
        json.dump(SETS[name], file)
    return folder


def session():
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master("local[2]").appName("squall-sets").config("spark.ui.enabled", "false")
    spark = spark.config("spark.driver.memory", "3g").config("spark.sql.shuffle.partitions", "8").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def write_table(folder, options):
    """An id, floats of [0, 1) that no encoding makes smaller, and a label."""
    from pyspark.sql import functions as F

    spark = session()
    rows = spark.range(0, options["rows"], 1, options["files"])
    number = lambda i: F.abs(F.xxhash64(F.col("id"), F.lit(options["seed"]), F.lit(i)) % (1 << 24)) / float(1 << 24)
    features = [number(i).cast("float").alias(f"f{i}") for i in range(options["features"])]
    label = (F.col("id") % 10).cast("int").alias("label")
    rows = rows.select("id", *features, label)
    rows.write.option("parquet.block.size", options["row_group_bytes"]).option("compression", "snappy").parquet(folder)


def write_petastorm(name, folder, options):
    import numpy as np
    from petastorm.codecs import CompressedImageCodec, NdarrayCodec, ScalarCodec
    from petastorm.etl.dataset_metadata import materialize_dataset
    from petastorm.unischema import Unischema, UnischemaField, dict_to_spark_row
    from pyspark.sql import types as T

    # What runs on Spark's workers may not need this file.
    value, seed = VALUES[name], options["seed"]
    codec = {
        "png": lambda: CompressedImageCodec("png"),
        "jpeg": lambda: CompressedImageCodec("jpeg", options["quality"]),
        "npy": NdarrayCodec,
    }[name]()
    dtype = np.float32 if name == "npy" else np.uint8
    schema = Unischema(
        "Set",
        [
            UnischemaField("id", np.int64, (), ScalarCodec(T.LongType()), False),
            UnischemaField("x", dtype, tuple(options["shape"]), codec, False),
            UnischemaField("label", np.int32, (), ScalarCodec(T.IntegerType()), False),
        ],
    )
    spark = session()
    row = lambda i: dict_to_spark_row(schema, {"id": i, "x": value(seed, i), "label": np.int32(i % 10)})
    with materialize_dataset(spark, "file://" + folder, schema, options["row_group_mb"]):
        rows = spark.sparkContext.range(0, options["rows"], 1, options["files"]).map(row)
        spark.createDataFrame(rows, schema.as_spark_schema()).write.parquet("file://" + folder)


def digit(seed, i):
    """Some thick, soft strokes on black, as a written digit is: 28 × 28."""
    import cv2
    import numpy as np

    rng = np.random.default_rng([seed, i])
    large = np.zeros((112, 112), np.uint8)
    points = rng.integers(24, 88, (int(rng.integers(3, 6)), 2)).astype(np.int32)
    cv2.polylines(large, [points], False, 255, int(rng.integers(8, 13)), cv2.LINE_AA)
    if rng.random() < 0.5:
        center = (int(rng.integers(40, 72)), int(rng.integers(40, 72)))
        cv2.circle(large, center, int(rng.integers(12, 24)), 255, 9, cv2.LINE_AA)
    return cv2.resize(large, (28, 28), interpolation=cv2.INTER_AREA)


def photo(seed, i):
    """Detail at all sizes, the larger the stronger, as photographs have it, with some edges: 256 × 256 × 3."""
    import cv2
    import numpy as np

    rng = np.random.default_rng([seed, i])
    image = np.full((256, 256, 3), 128, np.float32)
    for size, strength in ((4, 45), (8, 26), (16, 15), (32, 9), (64, 7), (128, 5), (256, 3.5)):
        grey = rng.standard_normal((size, size, 1), np.float32)
        colour = rng.standard_normal((size, size, 3), np.float32)
        image += strength * cv2.resize(0.85 * grey + 0.4 * colour, (256, 256), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(2, 6))):
        shade = tuple(float(c) for c in rng.uniform(-60, 60, 3))
        over = np.zeros_like(image)
        corners = rng.integers(0, 256, (int(rng.integers(3, 6)), 2)).astype(np.int32)
        cv2.fillPoly(over, [corners], shade, cv2.LINE_AA)
        image += over
    return np.clip(image, 0, 255).astype(np.uint8)


def array(seed, i):
    """Gaussian noise, which no compression makes smaller: 64 × 64."""
    import numpy as np

    return np.random.default_rng([seed, i]).standard_normal((64, 64), np.float32)


VALUES = {"png": digit, "jpeg": photo, "npy": array}


def write(name, folder):
    if name == "tabular":
        write_table(folder, SETS[name])
    else:
        write_petastorm(name, folder, SETS[name])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(*sys.argv[2:])
    else:
        main()
